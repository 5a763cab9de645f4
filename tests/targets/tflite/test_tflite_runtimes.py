"""Files in LiteRT, with each of its sets of kernels, and in TFLite Micro: no output differs.

Of tflite/adds.py too, and tflite/tflite_file.py, which brings integers into the file's order and back.
"""

from __future__ import annotations

from functools import cache

import pytest

import ana_fx
from ana_fx.errors import VerifyError
from ana_fx.targets.tflite.tflite_family import TFLITE_FAMILY
from tests.targets.channels_last.layout_networks import NETWORKS, trained_program

litert = pytest.mark.extra("tflite", "ai_edge_litert")
micro = pytest.mark.extra("tflite", "tflite_micro")


RUNTIMES = {
    "litert": [("litert",)],
    "tflite-micro": [("litert-reference",), ("tflite-micro",)],
    "tflite": [("litert", "litert-builtin", "litert-reference"), ("tflite-micro",)],
}
CASES = [
    pytest.param(target, name, precision, runtimes, marks=[micro if "tflite-micro" in runtimes else litert])
    for target, sets in RUNTIMES.items()
    for runtimes in sets
    for name in NETWORKS
    for precision in ("ternary", "int4", "int8")
]


program = cache(trained_program)


@pytest.mark.parametrize(("target", "name", "precision", "runtimes"), CASES)
def test_no_output_differs(target, name, precision, runtimes, tmp_path):
    integer, x = program(target, name, precision)
    ana_fx.export(integer, tmp_path / "m.tflite")
    for inputs in (x, None):  # None: extreme and random levels
        assert ana_fx.verify(integer, tmp_path / "m.tflite", inputs, runtimes=list(runtimes)).num_different == 0


@litert
def test_kernels_that_a_target_does_not_name_give_other_numbers(tmp_path):
    """So that the tests above could fail."""
    integer, x = program("litert", "VGG8/8", "int8")
    ana_fx.export(integer, tmp_path / "m.tflite")
    with pytest.raises(VerifyError, match="in litert-reference differs from the program"):
        ana_fx.verify(integer, tmp_path / "m.tflite", x, runtimes=["litert-reference"])


@litert
@pytest.mark.parametrize("batch", [1, 7])
def test_a_file_takes_batches_of_any_size(batch, tmp_path):
    integer, x = program("litert", "joined", "int8")
    ana_fx.export(integer, tmp_path / "m.tflite")
    assert ana_fx.verify(integer, tmp_path / "m.tflite", x[:batch]).num_outputs == 5 * batch


@litert
def test_its_signature_names_what_it_takes_and_gives(tmp_path):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter
    integer, _ = program("litert", "DS-CNN", "ternary")
    ana_fx.export(integer, tmp_path / "m.tflite")
    signatures = interpreter(model_path=str(tmp_path / "m.tflite")).get_signature_list()
    assert signatures == {"serving_default": {"inputs": ["cepstra"], "outputs": ["output"]}}


def test_a_runtime_that_is_not_installed_says_what_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tflite_micro", None)
    with pytest.raises(VerifyError, match=r"install ana_fx\[tflite\]"):
        TFLITE_FAMILY.runtime("tflite-micro")
