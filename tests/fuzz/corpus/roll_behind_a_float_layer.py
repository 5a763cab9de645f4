"""mismatch, file of qdq: the tolerance of a float layer stayed in place where its numbers moved."""

from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv2 = nn.Conv2d(3, 3, (2, 2), (1, 1), 'same', (1, 1), 3, True)

    def forward(self, x0):
        t2 = self.conv2(x0)
        t3 = t2.roll((1, -1), (2, 3))
        return t3


INPUTS = {'x0': ((3, 3, 5, 7), 'wide')}
SETTINGS = {'precision': {'output': 'float'}, 'target': 'qdq'}
SEED = 0
SITE = ('mismatch', 'file of qdq: VerifyError at ana_fx/targets/verify.py _compare')
OPEN = None
