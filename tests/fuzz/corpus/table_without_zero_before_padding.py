"""A sigmoid before zero padding: no level of the table is 0, the padding is."""

import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv2 = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, x0):
        t1 = torch.sigmoid(F.relu(x0))
        t2 = self.conv2(t1)
        t3 = F.relu(t2)
        return t3


INPUTS = {'x0': ((3, 2, 6, 6), 'signed')}
SETTINGS = {'precision': 'int4'}
SEED = 0
