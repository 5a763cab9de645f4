"""Positions as integers."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, x0):
        t1 = x0 + torch.arange(4)
        return t1


INPUTS = {'x0': ((3, 4), 'unit')}
SETTINGS = {}
SEED = 0
