"""Samples without an axis."""

from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, x0):
        t1 = x0.clip(max=0.5)
        return t1


INPUTS = {'x0': ((3,), 'unit')}
SETTINGS = {}
SEED = 0
