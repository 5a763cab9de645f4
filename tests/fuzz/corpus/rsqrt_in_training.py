"""crash, train: a reciprocal root of level 0, whose slope of 0 times infinity made weights NaN."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop1 = nn.Dropout2d(0.2)
        self.conv2 = nn.Conv2d(6, 1, (2, 1), (1, 1), 'same', (1, 1), 1, False)

    def forward(self, x2):
        t1 = self.drop1(x2)
        t2 = self.conv2(t1)
        t5 = t2 * torch.rsqrt(t2.square().mean(-1, keepdim=True) + 0.1)
        return t5


INPUTS = {'x2': ((3, 6, 7, 2), 'signed')}
SETTINGS = {'precision': 'all-ternary',
 'schedule': {'noise': 'logistic', 'strategy': 'random'},
 'calibration': True,
 'steps': 4}
SEED = 700412
SITE = ('crash', 'train: IndexError at ana_fx/layers/table_map.py look_up')
OPEN = None
