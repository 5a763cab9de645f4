"""A clip that no level reaches."""

import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear1 = nn.Linear(4, 3)

    def forward(self, x0):
        t1 = self.linear1(x0)
        t2 = F.hardtanh(t1 * 1000, 0.0, 0.001)
        t3 = t2 + t1
        return t3


INPUTS = {'x0': ((3, 4), 'wide')}
SETTINGS = {'target': 'integer'}
SEED = 0
