"""Partial sums above 2**24 whose total is below."""

from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear2 = nn.Linear(20000, 4)

    def forward(self, x0):
        t1 = x0.clamp(0.97, 1)
        t2 = self.linear2(t1)
        return t2


INPUTS = {'x0': ((3, 20000), 'unit')}
SETTINGS = {}
SEED = 0
