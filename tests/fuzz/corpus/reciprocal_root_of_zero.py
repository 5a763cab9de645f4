"""The table of a reciprocal root is infinite at level 0."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, x0):
        t1 = x0 * torch.rsqrt(x0.square().mean(-1, keepdim=True) + 1e-05)
        return t1


INPUTS = {'x0': ((3, 6, 3, 2, 2), "signed")}
SETTINGS = {}
SEED = 0
