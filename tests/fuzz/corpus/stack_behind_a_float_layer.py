"""crash, file of onnxruntime: a stack of what a float layer gives has another shape than the layer."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(4, 1, (1, 3), (3, 1), (1, 0), (2, 1), 1, False)

    def forward(self, x0):
        t1 = self.conv1(x0)
        t2 = torch.stack([t1, t1], 1)
        return t2


INPUTS = {'x0': ((3, 4, 5, 7), 'unit')}
SETTINGS = {'precision': {'output': 'float'}}
SEED = 0
SITE = ('crash', 'file of onnxruntime: ValueError at ana_fx/targets/verify.py _expected')
OPEN = None
