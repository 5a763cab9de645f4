"""A number of the model's own, in qdq."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale1 = nn.Parameter(torch.ones(()))

    def forward(self, x0):
        t1 = x0 * self.scale1.abs()
        return t1


INPUTS = {'x0': ((3, 1, 7, 1), 'unit')}
SETTINGS = {'target': 'qdq'}
SEED = 0
