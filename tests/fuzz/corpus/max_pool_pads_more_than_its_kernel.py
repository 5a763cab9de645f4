"""ceil_mode with dilation."""

import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, x0):
        t1 = F.max_pool2d(x0, (2, 3), padding=(1, 0), dilation=2, ceil_mode=True)
        return t1


INPUTS = {'x0': ((3, 2, 6, 6), 'signed')}
SETTINGS = {}
SEED = 0
