"""Draw the pictures of the site: `python docs/code/pictures.py` writes them into docs/pictures."""

from pathlib import Path

import torch
from torch import nn

import ana_fx

PICTURES = Path(__file__).resolve().parents[1] / "pictures"


def save(name, figure):
    figure.savefig(PICTURES / f"{name}.png", dpi=110, bbox_inches="tight")


class Net(nn.Module):
    """The network of the tutorial."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv2, self.norm2 = nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.conv3, self.norm3 = nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(64 * 2 * 2, 10)

    def forward(self, x):
        x = self.pool(self.norm1(self.conv1(x)).relu())
        x = self.norm2(self.conv2(x)).relu()
        x = self.norm3(self.conv3(x)).relu() + x
        return self.head(self.pool(x).flatten(1))


PICTURES.mkdir(exist_ok=True)
torch.manual_seed(0)
x = torch.rand(16, 1, 8, 8)
for interval in ("partition", "same_start", "overlapped", "same_end"):
    schedule = ana_fx.Schedule(interval=interval)
    name = "tutorial_schedule" if interval == "partition" else f"schedule_{interval}"
    save(name, ana_fx.plot_schedule(ana_fx.prepare(Net(), x, precision="ternary", schedule=schedule)))
save("quantizer_ternary", ana_fx.plot_quantizer("ternary"))
save("quantizer_uint2", ana_fx.plot_quantizer("uint2"))
qat = ana_fx.prepare(Net().eval(), x, precision="ternary", calibration=[x])
save("convergence", ana_fx.plot_convergence(ana_fx.compositional_convergence(qat, x)))
