"""mismatch, file of integer: two float layers, of which the file told what one reads."""

from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear3 = nn.Linear(1, 3, True)
        self.linear4 = nn.Linear(1, 5, True)

    def forward(self, x0):
        t3 = self.linear3(x0)
        t4 = self.linear4(x0)
        return (x0, t3, t4,)


INPUTS = {'x0': ((3, 3, 3, 1), 'unit')}
SETTINGS = {'precision': {'output': 'float'}, 'target': 'integer'}
SEED = 0
SITE = ('mismatch', 'file of integer: VerifyError at ana_fx/targets/verify.py _compare')
OPEN = None
