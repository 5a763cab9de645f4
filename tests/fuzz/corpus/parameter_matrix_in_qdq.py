"""A matrix product with a parameter, in qdq."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight1 = nn.Parameter(torch.ones(2, 7))

    def forward(self, x0):
        t1 = x0 @ self.weight1.t()
        return t1


INPUTS = {'x0': ((3, 2, 3, 7), 'unit')}
SETTINGS = {'target': 'qdq'}
SEED = 0
