"""Learned steps of tensors that are concatenated share one scale."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 3, 1)
        self.conv2 = nn.Conv2d(2, 3, 1)

    def forward(self, x0):
        t1 = self.conv1(x0)
        t2 = self.conv2(x0)
        t3 = torch.cat([t1, t2], 1)
        return t3


INPUTS = {'x0': ((3, 2, 6, 6), 'signed')}
SETTINGS = {'schedule': 'lsq', 'steps': 2}
SEED = 0
