"""A head of ternary weights reads bytes; it saturates on x86 without VNNI."""

from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear1 = nn.Linear(64, 10)

    def forward(self, x0):
        t1 = self.linear1(x0)
        return t1


INPUTS = {'x0': ((3, 64), 'unit')}
SETTINGS = {'precision': 'ternary', 'target': 'integer'}
SEED = 0
