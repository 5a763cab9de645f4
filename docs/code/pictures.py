"""Draw the pictures of the site: `python docs/code/pictures.py` writes them into docs/pictures."""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn

import ana_fx

COLOURS = ("#24313d", "#1b7f8c", "#c4572e")  # ink, teal, rust
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


def staircases():
    """One layer map of three channels, swept over all levels of its one input: what is real, and what is deployed."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1))
    for _ in range(300):
        net(torch.rand(64, 1))
    x, found = torch.arange(256)[:, None] / 255, []
    qat = ana_fx.prepare(net.eval(), x, precision=ana_fx.Precision("int8", "uint3"), calibration=[x]).eval()
    scale = qat.get_submodule("0.output_quantizer").scale.item()
    qat.get_submodule("0").register_forward_hook(lambda _, __, output: found.append(output / scale))
    with torch.no_grad():
        qat(x)
        levels, real = found[-1], net[:3](x) / scale
    figure = Figure(figsize=(9.0, 3.0), layout="constrained")
    for channel, axes in enumerate(figure.subplots(1, 3, sharey=True)):
        axes.plot(range(256), real[:, channel], color=COLOURS[1], linewidth=1.4, label="batch norm and ReLU, in reals")
        axes.step(range(256), levels[:, channel], color=COLOURS[0], linewidth=1.6, where="post", label="level")
        jumps = torch.nonzero(levels[1:, channel] != levels[:-1, channel]).flatten() + 1
        axes.plot(jumps, levels[jumps, channel], "|", color=COLOURS[2], markersize=9, label="threshold")
        axes.set(title=f"channel {channel}", xlabel="level of the input", ylim=(-0.4, 7.4))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("level of the output")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def weights_and_levels():
    """The weights of one channel, and the levels that a scale gives them."""
    torch.manual_seed(0)
    weights = nn.Conv2d(64, 1, 3).weight.detach() * torch.randn(1, 64, 3, 3).abs()
    net = nn.Sequential(nn.Conv2d(64, 1, 3))
    net[0].weight.data = weights
    x = torch.rand(2, 64, 8, 8)
    figure = Figure(figsize=(9.0, 2.8), layout="constrained")
    for axes, width in zip(figure.subplots(1, 3, sharey=True), ("ternary", "int3", "int4"), strict=True):
        quantizer = ana_fx.prepare(net, x, precision=width, calibration=[x]).get_submodule("0.weight_quantizer")
        scale, kind = quantizer.scale.item(), quantizer.integer_type
        axes.hist(weights.flatten(), bins=60, color=COLOURS[1])
        for level in range(kind.qmin, kind.qmax + 1):
            axes.axvline(level * scale, color=COLOURS[2], linewidth=1.2)
        axes.set(title=f"{width}: scale {scale:.4f}", xlabel="weight")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("how many")
    return figure


PICTURES.mkdir(exist_ok=True)
torch.manual_seed(0)
x = torch.rand(16, 1, 8, 8)
for interval in ("partition", "same_start", "overlapped", "same_end"):
    schedule = ana_fx.Schedule(interval=interval)
    name = "tutorial_schedule" if interval == "partition" else f"schedule_{interval}"
    save(name, ana_fx.plot_schedule(ana_fx.prepare(Net(), x, precision="ternary", schedule=schedule)))
save("quantizer_ternary", ana_fx.plot_quantizer("ternary"))
save("quantizer_uint2", ana_fx.plot_quantizer("uint2"))
qat = ana_fx.prepare(Net().eval(), x, precision="ternary", schedule=ana_fx.Schedule(), calibration=[x])
save("convergence", ana_fx.plot_convergence(ana_fx.compositional_convergence(qat, x)))
save("staircases", staircases())
save("weights_and_levels", weights_and_levels())
