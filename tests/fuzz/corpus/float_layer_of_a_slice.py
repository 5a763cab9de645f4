"""mismatch, convert: a float layer that sums strided numbers in another order than whole ones."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear4 = nn.Linear(5, 5, True)

    def forward(self, x0):
        t2_0, t2_1 = torch.chunk(x0, 2, dim=2)
        t4 = self.linear4(t2_1)
        return t4


INPUTS = {'x0': ((3, 2, 3, 5), 'unit')}
SETTINGS = {'precision': {'output': 'float'}}
SEED = 0
SITE = ('mismatch', 'convert: MismatchError at ana_fx/passes/convert.py _compare')
OPEN = None
