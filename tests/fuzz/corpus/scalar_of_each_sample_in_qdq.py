"""Samples without an axis, in qdq."""

from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, x0):
        t1 = x0.clamp(-2, 2).exp()
        return t1


INPUTS = {'x0': ((3,), 'unit')}
SETTINGS = {'target': 'qdq'}
SEED = 0
