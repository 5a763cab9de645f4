"""Pixels are expected of what is no image."""

from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear1 = nn.Linear(4, 3)

    def forward(self, x0):
        t1 = self.linear1(x0)
        return t1


INPUTS = {'x0': ((3, 4), 'unit')}
SETTINGS = {'precision': {'input': {'mean': 0.0, 'std': 0.22}}}
SEED = 0
