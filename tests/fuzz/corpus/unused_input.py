"""An input that nothing reads."""

import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, x0, x1):
        t1 = F.relu(x0)
        return t1


INPUTS = {'x0': ((3, 4), 'unit'), 'x1': ((3, 4), 'unit')}
SETTINGS = {}
SEED = 0
