"""The program of MLPerf Tiny's networks, on a network and data of its own."""

import pytest
import torch
from torch import nn

import ana_fx
from examples import mlperf_tiny
from examples.mlperf_tiny import FORMS, Case, Outcome, run_case, table_of, teach
from examples.trained_networks import Examples, TrainedNetwork


class Tiny(TrainedNetwork):
    """A network with random weights."""

    def load(self, data):
        torch.manual_seed(0)
        return self.make().eval()


def make():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def tiny():
    x = torch.rand(144, 3, 8, 8)
    examples = Examples(x[:128], x[128:], torch.zeros(16, dtype=torch.int64))
    return Tiny(make, "", lambda _: examples, "auto")


@pytest.mark.extra("tflite", "ai_edge_litert")
@pytest.mark.parametrize("form", FORMS)
def test_no_output_of_a_file_depends_on_the_kernels(form, monkeypatch, tmp_path):
    monkeypatch.setitem(mlperf_tiny.TRAINED, "tiny", tiny())
    outcome = run_case(Case("tiny", "litert", form, 0), tmp_path, 64, 1, runs_file=True)
    assert (outcome.different, outcome.num_outputs) == ({"litert": 0}, 160)
    assert outcome.bytes > 0


def test_a_taught_network_comes_nearer_to_its_teacher():
    torch.manual_seed(0)
    teacher, x = make().eval(), torch.rand(640, 3, 8, 8)
    qat = ana_fx.prepare(teacher, x[:2], precision="int2", schedule="lsq", calibration=[x])
    statistics = {name: each.clone() for name, each in qat.named_buffers() if "running_mean" in name}
    before = distance(qat, teacher, x)
    teach(qat, teacher, x, 3)
    assert distance(qat, teacher, x) < before
    assert statistics
    assert all(torch.equal(qat.get_buffer(name), each) for name, each in statistics.items())


@torch.no_grad()
def distance(qat, teacher, x):
    return float((qat.eval()(x) - teacher(x)).square().mean())


def test_the_table_has_a_row_for_each_network_target_and_form():
    cases = [Case("a", target, form, seed) for target in ("tflite", "litert") for form in FORMS for seed in (0, 1)]
    outcomes = [Outcome(case, 0.9, 0.8, {"litert": 0} if case.seed == 0 else None, 10, 100) for case in cases]
    table = table_of(outcomes)
    assert table.row_count == 6
    assert next(iter(table.columns[5].cells)) == "litert 0 of 10"
