"""Two runs in step give what two runs give, and forget what nobody reads."""

import pytest
import torch

import ana_fx
from ana_fx.errors import CalibrationError
from ana_fx.passes.post_training.float_twin import float_twin
from ana_fx.passes.post_training.side_by_side import SideBySide, batches_for
from tests.models import Residual


@torch.no_grad()
def test_results_are_those_of_whole_runs():
    x = torch.randn(4, 3, 16, 16)
    qat = ana_fx.prepare(Residual().eval(), x, calibration=[x])
    twin, batches = float_twin(qat), [(x[:3],), (x[3:],)]
    runs = SideBySide(qat, twin, batches)
    last = [runs.run(node) for node in runs.nodes][-1]
    for (inputs,), (ours, floats) in zip(batches, last, strict=True):
        assert torch.equal(ours, qat(inputs))
        assert torch.equal(floats, twin(inputs))
    assert all(len(values) <= 1 for side in runs._values for values in side)


def test_no_batch_is_refused():
    qat = ana_fx.prepare(torch.nn.Linear(3, 2), torch.rand(2, 3))
    with pytest.raises(CalibrationError, match="holds no batch; needed at least one"):
        batches_for(qat, [])
