"""What a type checker makes of a user's program: the right one passes strictly, each mistake is told."""

import os
import re
import subprocess
import sys

import pytest

from tests.test_packaging import ROOT

PROGRAM = """
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import ana_fx


def quantise(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], steps: int) -> ana_fx.VerifyReport:
    precision = ana_fx.Precision("int4", "uint4", first="int8", overrides={"head": "int8", "neck": "float"})
    image = ana_fx.ImageInput(mean=(0.5, 0.4, 0.3), std=0.25)
    island = ana_fx.Precision(activation="uint8", input=image, overrides={"a.*": ana_fx.Precision(stays_float=True)})
    qat: GraphModule = ana_fx.prepare(model, torch.rand(8, 1, 8, 8), precision=precision, schedule="lsq")
    annealer = ana_fx.Annealer(qat, steps)
    distiller = ana_fx.Distiller(model)
    for x, y in batches:
        logits: Tensor = qat(x)
        distiller(logits, x, nn.functional.cross_entropy(logits, y)).backward()
        annealer.step()
    progress: float = annealer.progress
    ranges: dict[str, ana_fx.AnnealingRange] = ana_fx.annealing_ranges(qat)
    integer = ana_fx.convert(qat)
    exported: ana_fx.ExportReport = ana_fx.export(integer, "model.onnx", target="qdq")
    page: ana_fx.ProgramReport = ana_fx.report(integer, "model.html", files=[exported.path])
    sizes: tuple[int, float, tuple[str, ...]] = exported.weight_bytes, exported.ratio, exported.float_layers
    print(sizes, island)
    text: str = ana_fx.describe(integer).to_json() + page.to_json() + str(progress) + str(len(ranges))
    print(text, ana_fx.__version__, [target.name for target in ana_fx.target_registry.targets()])
    return ana_fx.verify(integer, exported.path, runtimes=["onnxruntime"])
"""
MISTAKES = {
    "ana_fx.prepare(torch.zeros(1))": "arg-type",
    "ana_fx.Precision(4, 4)": "arg-type",
    "ana_fx.Annealer(nn.Linear(1, 1), total_step=1)": "call-arg",
    "ana_fx.export(nn.Linear(1, 1), 'm.onnx', 'qdq')": "call-arg",
    "ana_fx.verify(nn.Linear(1, 1), 'm.onnx').differences": "attr-defined",
}

pytestmark = pytest.mark.slow


def checked(code, folder):
    (folder / "user.py").write_text(code)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent"]
    command += ["--untyped-calls-exclude=torch", "user.py"]  # much of torch has no annotations
    env = {**os.environ, "MYPYPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False).stdout


def test_a_program_of_a_user_is_typed_and_mistakes_are_told(tmp_path):
    mistakes = "\n".join(f"def mistake_{i}() -> None:\n    {code}\n" for i, code in enumerate(MISTAKES))
    found = checked(f"{PROGRAM}\n\n{mistakes}", tmp_path)
    first = PROGRAM.count("\n") + 2
    told = re.findall(r"^user\.py:(\d+): error: .*\[([\w-]+)\]$", found, re.MULTILINE)
    errors = {int(line): code for line, code in told}
    assert {line: code for line, code in errors.items() if line <= first} == {}, found
    assert [errors.get(first + 2 + 3 * i) for i in range(len(MISTAKES))] == list(MISTAKES.values()), found
