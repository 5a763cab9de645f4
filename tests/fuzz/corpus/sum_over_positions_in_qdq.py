"""A sum over both axes of an image, in qdq."""

import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, x0):
        t1 = F.relu(x0).sum((2, 3))
        return t1


INPUTS = {'x0': ((3, 2, 6, 6), 'signed')}
SETTINGS = {'target': 'qdq'}
SEED = 0
