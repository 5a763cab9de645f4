"""A norm after a table that is all zero."""

import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, x0):
        t1 = F.threshold(x0, 9.0, 0.0)
        t2 = F.layer_norm(t1, (4,))
        return t2


INPUTS = {'x0': ((3, 4), 'unit')}
SETTINGS = {}
SEED = 0
