"""The bytes of files for networks whose every number is a fixed binary fraction, so that no processor rounds otherwise.

A change that means to change files stores their fingerprints, `python -m tests.test_file_fingerprints`, and says why.
"""

import hashlib
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

import ana_fx
from ana_fx.graph import quantizers
from ana_fx.target_registry import target_called
from tests.fingerprints import Gated
from tests.models import INPUT_SHAPES, Depthwise, Residual

STORED = Path(__file__).parent / "file_fingerprints.json"
NETWORKS = {kind.__name__: (kind, INPUT_SHAPES[kind]) for kind in (Depthwise, Residual)} | {"Gated": (Gated, (3, 8, 8))}
CASES = (("Depthwise", "binary"), ("Depthwise", "int4"), ("Residual", "ternary"), ("Gated", "int8"))
TARGETS = [target.name for target in ana_fx.targets()]


def fraction(index: int, size: int) -> float:
    """A number of seven bits, that differs along a tensor."""
    return ((37 * index + size) % 127 - 63) / 64


def filled(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for tensor in model.parameters():
            numbers = [fraction(index, tensor.numel()) for index in range(tensor.numel())]
            tensor.copy_(torch.tensor(numbers).reshape(tensor.shape))
    return model


def files(network: str, precision: str, target: str) -> dict[str, str]:
    """The SHA-256 of each file, or the refusal."""
    make, shape = NETWORKS[network]
    try:
        qat = ana_fx.prepare(
            filled(make()), torch.zeros(2, *shape) - 1.0, precision=precision, schedule="ste", target=target
        )
        for index, (_, quantizer) in enumerate(quantizers(qat)):
            fan_in = 1 if quantizer.scale.ndim == 0 else math.prod(quantizer.scale.shape[1:])
            quantizer.set_scale(torch.full_like(quantizer.scale, 2.0 ** -(4 + index % 3) * fan_in))
        program = ana_fx.convert(qat)
        with TemporaryDirectory() as folder:
            ana_fx.export(program, Path(folder) / f"model{target_called(target).file_format.suffix}")
            found = sorted(Path(folder).iterdir())
            return {file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in found}
    except ana_fx.AnaFxError as refusal:
        return {"refused": type(refusal).__name__}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("network", "precision"), CASES)
def test_files_have_the_bytes_that_they_had(network, precision, target):
    assert files(network, precision, target) == json.loads(STORED.read_text())[f"{network} {precision} {target}"]


if __name__ == "__main__":
    cases = [(*case, target) for case in CASES for target in TARGETS]
    STORED.write_text(json.dumps({" ".join(case): files(*case) for case in cases}, indent=0, sort_keys=True) + "\n")
