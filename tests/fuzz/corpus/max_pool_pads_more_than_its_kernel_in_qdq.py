"""Padding as wide as the kernel, in qdq: ceil_mode with dilation."""

import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, x0):
        t1 = F.max_pool2d(x0, (1, 3), (3, 3), (0, 1), (1, 2), ceil_mode=True)
        return t1


INPUTS = {'x0': ((3, 3, 1, 4), 'unit')}
SETTINGS = {'target': 'qdq'}
SEED = 0
