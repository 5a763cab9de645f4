"""A module called `in`."""

from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.named1 = nn.ModuleDict({'in': nn.Linear(4, 3)})

    def forward(self, x0):
        t1 = self.named1['in'](x0)
        return t1


INPUTS = {'x0': ((3, 4), 'unit')}
SETTINGS = {}
SEED = 0
