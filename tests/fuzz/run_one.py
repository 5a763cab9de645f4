"""Run one case: prepare, train, convert and export, and compare every form of the model bit for bit."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import ana_fx
from tests.fuzz.case import Loaded
from tests.fuzz.float_model import float_model, leaves
from tests.fuzz.inputs import hard_inputs
from tests.fuzz.outcome import LOSSLESS, DifferenceError, Outcome, outcome_of
from tests.fuzz.settings import DEFAULTS, precision_of, schedule_of

__all__ = ["run_one"]


class _Stage:
    """Where a run is."""

    name = "build"


def run_one(case: Loaded) -> Outcome:
    """What becomes of a case.

    Raises:
        UnsoundError: The float model does not run.
    """
    settings = {**DEFAULTS, **case.settings}
    stage = _Stage()
    with _seeded(case.seed), _threads(settings["threads"]):
        model, examples = float_model(case)
        try:
            _check(model, examples, settings, case.seed, stage)
        except Exception as error:  # whatever it is, it is the outcome
            return outcome_of(error, stage.name)
    return Outcome(LOSSLESS)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    random.seed(seed)
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check(model: nn.Module, examples: dict[str, Tensor], settings: dict[str, Any], seed: int, stage: _Stage) -> None:
    given = tuple(examples.values())
    stage.name = "prepare"
    qat = _prepare(model, given, settings)
    stage.name = "train"
    _train(qat, given, settings["steps"])
    stage.name = "convert"
    program = ana_fx.convert(qat)
    stage.name = "inputs"
    inputs = hard_inputs(qat, examples, seed)
    if settings["resumes"]:
        stage.name = "resume"
        first, qat = qat, _prepare(model, given, settings)
        qat.load_state_dict(first.state_dict())
        _compare(_run(first, inputs), _run(qat.eval(), inputs))
        program = ana_fx.convert(qat)
    stage.name = "eval"
    _compare(_run(qat, inputs), _run(program, inputs))
    fed = _in_order(program, inputs)
    stage.name = "save"
    _compare(_run(program, inputs), _run(_saved(program), inputs))
    for target in dict.fromkeys((settings["target"], "integer")):
        _check_files(program, fed, target, stage)


def _saved(program: GraphModule) -> GraphModule:
    with TemporaryDirectory() as folder:
        ana_fx.save(program, Path(folder) / "program.anafx")
        return ana_fx.load(Path(folder) / "program.anafx")


def _prepare(model: nn.Module, given: tuple[Tensor, ...], settings: dict[str, Any]) -> GraphModule:
    return ana_fx.prepare(
        model,
        given if settings["examples"] else None,
        precision=precision_of(settings),
        schedule=schedule_of(settings),
        target=settings["target"],
        calibration=[given] if settings["calibration"] else None,
    )


def _train(qat: GraphModule, given: tuple[Tensor, ...], steps: int) -> None:
    """One forward pass, or steps with an annealer; the model ends in eval mode with its noise gone."""
    qat.train()
    if not steps:
        with torch.no_grad():
            qat(*given)
    learned = [each for each in qat.parameters() if each.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.01) if learned else None
    annealer = ana_fx.Annealer(qat, max(1, steps))
    for _ in range(steps):
        outputs = [x for x in leaves(qat(*given)) if x.requires_grad]
        if outputs and optimizer is not None:
            sum(x.tanh().sum() for x in outputs).backward()  # of bounded gradient
            optimizer.step()
            optimizer.zero_grad()
        annealer.step()
    if not steps:
        annealer.step()
    qat.eval()


def _check_files(program: GraphModule, inputs: tuple[Tensor, ...], target: str, stage: _Stage) -> None:
    with TemporaryDirectory() as folder:
        for io in ("integer", "float"):
            path = Path(folder) / f"{io}.onnx"
            stage.name = "export"
            try:
                ana_fx.export(program, path, target=target, io=io)
            except ana_fx.ExportError as error:
                if target == program.meta["target"] or type(error) is not ana_fx.ExportError:
                    raise
                return  # a program for one target may be refused by another
            stage.name = f"file of {target}"
            found = ana_fx.verify(program, path, inputs, runtimes=("onnxruntime",))
            if found.num_different:
                raise DifferenceError(str(found))


@torch.no_grad()
def _run(model: GraphModule, inputs: dict[str, Tensor]) -> list[Tensor]:
    return leaves(model(*_in_order(model, inputs)))


def _in_order(model: GraphModule, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return tuple(inputs[str(node.target)] for node in model.graph.find_nodes(op="placeholder"))


def _compare(wanted: list[Tensor], found: list[Tensor]) -> None:
    if len(wanted) != len(found):
        raise DifferenceError(f"{len(found)} outputs, needed {len(wanted)}")
    for index, (want, have) in enumerate(zip(wanted, found, strict=True)):
        if want.shape != have.shape or want.dtype != have.dtype:
            raise DifferenceError(f"output {index} is {have.dtype} {have.shape}, needed {want.dtype} {want.shape}")
        different = want != have
        if bool(different.any()):
            raise DifferenceError(f"output {index}: {int(different.sum())} of {different.numel()} numbers differ")
