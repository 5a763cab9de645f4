"""A comparison of integers that the code makes."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, x0):
        t1 = x0 * (torch.arange(2) > 0)
        return t1


INPUTS = {'x0': ((3, 2), 'unit')}
SETTINGS = {}
SEED = 0
