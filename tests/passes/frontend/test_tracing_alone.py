"""Tracing and everything after it in many threads: no other thread's module call is touched."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import _symbolic_trace

import ana_fx
from ana_fx.passes.frontend.trace_model import trace

UNRELATED = nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, batch_first=True)).eval()
TOKENS = torch.linspace(-1, 1, 48).reshape(2, 3, 8)


class Waits(nn.Module):
    """Its forward waits in the middle of tracing until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.events = threading.Event(), threading.Event()

    def __deepcopy__(self, memo: dict[int, Any]) -> Waits:
        return self

    def forward(self, x: Tensor) -> Tensor:
        has_begun, goes_on = self.events
        has_begun.set()
        assert goes_on.wait(60)
        return self.linear(x).relu()


@contextmanager
def tracing_elsewhere() -> Iterator[None]:
    """Another thread is in the middle of a trace."""
    model = Waits()
    with ThreadPoolExecutor(1) as pool:
        traced = pool.submit(trace, model, torch.rand(2, 3))
        assert model.events[0].wait(60)
        try:
            yield
        finally:
            model.events[1].set()
    assert [node.op for node in traced.result().graph.nodes] == ["placeholder", "call_module", "call_method", "output"]


def network(width: int) -> nn.Module:
    convolution = nn.Conv2d(3, width, 3, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Linear(16 * width, 5))


def ship(width: int, folder: Path) -> int:
    """Take a network all the way; how many numbers differ."""
    x = torch.rand(4, 3, 4, 4)
    qat = ana_fx.prepare(network(width), x, calibration=[x]).eval()
    program = ana_fx.convert(qat)
    with torch.no_grad():
        num_different = int((program(x) != qat(x)).sum())
    ana_fx.export(program, folder / f"{width}.onnx")
    return num_different + ana_fx.verify(program, folder / f"{width}.onnx", x).num_different


@torch.no_grad()
def test_eight_threads_prepare_while_others_run_an_unrelated_model(tmp_path):
    wanted, is_over, differences = UNRELATED(TOKENS), threading.Event(), []

    @torch.no_grad()
    def run_on() -> None:
        torch.set_num_threads(1)  # a new thread has torch's own number until it is told, and so another order of sums
        while not is_over.is_set():
            differences.append(not torch.equal(UNRELATED(TOKENS), wanted))

    with ThreadPoolExecutor(10) as pool:
        runners = [pool.submit(run_on) for _ in range(2)]
        shipped = [pool.submit(ship, width, tmp_path) for width in range(4, 12)]
        try:
            assert [each.result() for each in shipped] == [0] * 8
        finally:
            is_over.set()
        assert all(runner.result() is None for runner in runners)
    assert len(differences) > 0
    assert not any(differences)
    assert network(4)(torch.rand(1, 3, 4, 4)).shape == (1, 5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: UNRELATED(TOKENS),
        lambda: nn.Linear(3, 2).weight.shape,
        lambda: torch.zeros(2, 3) + torch.ones(2, 3),
        lambda: TOKENS[0].expand(2, 3, 8),
        torch.backends.mha.get_fastpath_enabled,
        lambda: bool(_symbolic_trace.is_fx_tracing()),
        lambda: logging.getLogger("torch._subclasses.fake_tensor").filter(logging.makeLogRecord({})) is not False,
    ],
)
@torch.no_grad()
def test_a_thread_that_does_not_trace_sees_torch_as_it_is(call: Callable[[], Any]):
    torch.manual_seed(0)
    wanted = call()
    with tracing_elsewhere(), torch.no_grad():
        torch.manual_seed(0)
        found = call()
    assert torch.equal(found, wanted) if isinstance(wanted, Tensor) else found == wanted


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script:DeprecationWarning", "ignore:.torch.jit.script:FutureWarning"
)  # torch.compile itself calls it
@torch.no_grad()
def test_a_compiled_model_runs_and_another_is_compiled_when_the_trace_is_over():
    first, second = (torch.compile(nn.Linear(8, 8), backend="eager", fullgraph=True) for _ in range(2))
    first(TOKENS)
    with ThreadPoolExecutor(1) as pool:
        with tracing_elsewhere():
            assert first(TOKENS).shape == TOKENS.shape
            waiting = pool.submit(second, TOKENS)
        assert waiting.result(60).shape == TOKENS.shape


def test_threads_that_trace_wait_for_each_other():
    with ThreadPoolExecutor(1) as pool:
        with tracing_elsewhere():
            waiting = pool.submit(trace, nn.Sequential(nn.Linear(8, 8)))
            assert not waiting.done()
        assert [node.op for node in waiting.result(60).graph.nodes] == ["placeholder", "call_module", "output"]


def test_torch_is_as_before_after_a_trace_that_failed():
    names = [(nn.Module, "__call__"), (nn.Module, "__getattr__"), (torch, "zeros"), (Tensor, "__getitem__")]
    before = [getattr(owner, name) for owner, name in names]
    with pytest.raises(ana_fx.TraceError):
        trace(type("Fails", (nn.Module,), {"forward": lambda self, x: int(x)})())
    assert [getattr(owner, name) for owner, name in names] == before
    assert not _symbolic_trace.is_fx_tracing()


_IMPORTS_THE_COMPILER = """
import sys, torch
from ana_fx.passes.frontend.trace_model import trace

assert "torch._dynamo" not in sys.modules
trace(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()))
import torch._dynamo  # which tracing imports, or this line
rules = sys.modules["torch._dynamo.trace_rules"].get_torch_obj_rule_map()
print(torch.ones in rules, torch.zeros in rules)
"""


def test_torch_s_compiler_knows_what_was_replaced_while_a_model_was_traced_without_inputs():
    run = subprocess.run([sys.executable, "-c", _IMPORTS_THE_COMPILER], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["True", "True"], run.stderr
