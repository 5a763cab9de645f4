"""A saved program is the program; a file that somebody changed is refused, and no code of it runs.

They cover `files/array_file.py`, `files/plain_values.py`, `files/saved_graph.py`, `files/saved_specs.py` too.
"""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

import ana_fx
from tests.models import INPUT_SHAPES, Chain, Residual, example
from tests.programs import converted, settled
from tests.random_graphs import networks
from tests.test_random_graphs import REFUSALS, precisions

DETERMINISTIC = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


class Everything(nn.Module):
    """Movements, tables, softmax, normalisation, constants, products; outputs in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm(16), nn.Linear(16, 5)
        self.positions = nn.Parameter(torch.randn(16))
        self.up = nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, x: Tensor) -> dict[str, Any]:
        x = torch.sigmoid(self.conv(x))
        pooled = nn.functional.adaptive_avg_pool2d(self.up(x), (4, 4)).flatten(2)
        y = self.norm(pooled + self.positions)
        weights = torch.softmax(y @ y.transpose(1, 2), -1)
        mixed = torch.cat([weights @ y, y.flip(1)], 1)[:, ::2]
        return {"logits": self.head(mixed), "maps": (x, nn.functional.max_pool2d(x, 2)), "times": y * y}


def made(model: nn.Module, x: Tensor, **how: Any) -> GraphModule:
    return ana_fx.convert(ana_fx.prepare(model, x, calibration=[x], **how))


def programs() -> list[Callable[[], tuple[GraphModule, Tensor]]]:
    image = torch.rand(4, 3, 6, 6)
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))
    pixels = ana_fx.ImageInput(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    centred = ana_fx.ImageInput(mean=0.5, std=0.25)
    return [
        *(lambda kind=kind: (converted(kind, "int8", awkward=True), example(kind)) for kind in INPUT_SHAPES),
        lambda: (converted(Residual, "ternary", target="deeploy"), example(Residual)),
        lambda: (converted(Chain, "int4", rounding="floor", target="integer"), example(Chain)),
        lambda: (made(Everything(), image, precision="int4"), image),
        lambda: (made(small, image, precision=ana_fx.Precision("int4", "uint4", output="float")), image),
        lambda: (made(small, image, precision=ana_fx.Precision("int8", "uint8", output="int8")), image),
        lambda: (made(small, image, precision=ana_fx.Precision("int4", "uint4", input=pixels)), image),
        lambda: (made(small, image, precision=ana_fx.Precision("int4", "uint4", input=centred)), image),
    ]


def assert_same(program: GraphModule, x: Tensor, folder: Path) -> None:
    """Saved and loaded, a program gives the same integers, files, descriptions, and the same file again."""
    ana_fx.save(program, folder / "a.anafx")
    loaded = ana_fx.load(folder / "a.anafx")
    inputs = torch.cat([x, torch.randn_like(x) * 2])
    for wanted, found in zip(pytree.tree_leaves(program(inputs)), pytree.tree_leaves(loaded(inputs)), strict=True):
        assert torch.equal(wanted, found)
    assert str(ana_fx.describe(loaded)) == str(ana_fx.describe(program))
    assert loaded.meta["annealing_ranges"] == program.meta["annealing_ranges"]
    assert loaded.meta["precision"] == program.meta["precision"]
    files = []
    for each, name in ((program, "before"), (loaded, "after")):
        (folder / name).mkdir(exist_ok=True)
        ana_fx.export(each, folder / name / "network.onnx")
        files.append({path.name: path.read_bytes() for path in (folder / name).iterdir()})
    assert files[0] == files[1]
    assert ana_fx.verify(loaded, folder / "before" / "network.onnx", inputs).num_different == 0
    ana_fx.save(loaded, folder / "b.anafx")
    assert (folder / "a.anafx").read_bytes() == (folder / "b.anafx").read_bytes()


@pytest.mark.parametrize("make", programs())
def test_a_program_is_what_it_was(make, tmp_path):
    assert_same(*make(), tmp_path)


def explore(drawn: tuple[nn.Module, Tensor], precision: ana_fx.Precision) -> None:
    model, x = drawn
    torch.set_num_threads(1)
    try:
        qat = ana_fx.prepare(model, x, precision=precision)
        qat.train()(x)
        program = ana_fx.convert(settled(qat).eval())
    except REFUSALS:
        return
    with TemporaryDirectory() as folder:
        assert_same(program, x, Path(folder))


@settings(max_examples=15, **DETERMINISTIC)
@given(networks(), precisions)
def test_a_random_program_is_what_it_was(drawn, precision):
    explore(drawn, precision)


@pytest.mark.slow
@settings(max_examples=500, **DETERMINISTIC)
@given(networks(), precisions)
def test_five_hundred_random_programs_are_what_they_were(drawn, precision):
    explore(drawn, precision)


def test_only_the_first_example_is_kept(tmp_path):
    program = converted(Chain)
    ana_fx.save(program, tmp_path / "a.anafx")
    (kept,) = ana_fx.load(tmp_path / "a.anafx").meta["example_inputs"]
    assert torch.equal(kept, program.meta["example_inputs"][0][:1])


def test_a_model_that_was_not_converted_is_refused(tmp_path):
    for model in (Chain(), ana_fx.prepare(Chain())):
        with pytest.raises(ValueError, match=r"save\(\) needs a program from ana_fx\.convert, got"):
            ana_fx.save(model, tmp_path / "a.anafx")
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_files_do_not_hold_is_refused_by_name(tmp_path):
    program = copy.deepcopy(converted(Chain))
    program.head = nn.Tanh()
    with pytest.raises(ana_fx.ExportError, match="module 'head' is Tanh"):
        ana_fx.save(program, tmp_path / "a.anafx")
    assert list(tmp_path.iterdir()) == []


def test_the_layout_is_that_of_safetensors(tmp_path):
    ana_fx.save(converted(Chain), tmp_path / "a.anafx")
    data = (tmp_path / "a.anafx").read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    assert json.loads(header["__metadata__"]["ana_fx.program"])["format"] == 1
    weights = [entry for name, entry in header.items() if name != "__metadata__" and entry["dtype"] == "I8"]
    start, end = weights[0]["data_offsets"]
    first = np.frombuffer(data[8 + length + start : 8 + length + end], np.int8).reshape(weights[0]["shape"])
    assert first.tobytes() == converted(Chain).get_submodule("features.0").weight.numpy().tobytes()


# files of strangers


def parts(path: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Header, description and bytes of a saved program."""
    ana_fx.save(converted(Chain), path)
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["ana_fx.program"]), data[8 + length :]


def write(path: Path, header: dict[str, Any], description: Any, content: bytes) -> None:
    header["__metadata__"] = {"ana_fx.program": json.dumps(description)}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


def refusal(path: Path) -> str:
    with pytest.raises(ana_fx.VerifyError) as caught:
        ana_fx.load(path)
    message = str(caught.value)
    assert message.startswith(f"cannot load {path}: ")
    assert len(message.splitlines()) == 1
    return message


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another format": (lambda d: d.update(format=2), "found format 2, needed 1"),
    "no format": (lambda d: d.pop("format"), "found format None"),
    "another part": (lambda d: d.update(code="import os"), "found other parts"),
    "a class of Python": (lambda d: d["modules"].update(head={"is": "Popen", "args": "id"}), "object of 'Popen'"),
    "a value for a module": (
        lambda d: d["modules"].update(head={"is": "Identity"}),
        "object of 'Identity', needed Module",
    ),
    "an unknown argument": (lambda d: d["modules"]["head"].update(hook="x"), r"['hook'] of IntegerHead"),
    "a missing argument": (lambda d: d["modules"]["head"].pop("factor"), "cannot make IntegerHead"),
    "a text for a number": (lambda d: d["modules"]["head"].update(factor="1"), "found '1', needed int"),
    "a truth for a number": (lambda d: d["modules"]["head"].update(factor=True), "found True, needed int"),
    "an endless number": (lambda d: d["modules"]["head"].update(factor=10**30), "needed int"),
    "a huge pad": (lambda d: d["modules"]["features.0"]["affine"].update(padding=[[10**9] * 2] * 2), "found a size"),
    "a stride of zero": (lambda d: d["modules"]["features.0"]["affine"].update(stride=[0, 0]), "cannot compute"),
    "a bit width": (lambda d: d["modules"]["x_quantizer"]["integer_type"].update(bits=99), "1 to 8 bits"),
    "an array twice": (
        lambda d: d["modules"]["head"].update(highest=d["modules"]["head"]["lowest"]),
        "one that is used twice",
    ),
    "an array that nothing uses": (lambda d: d["modules"]["head"].update(weight=None), "arrays that nothing uses"),
    "code in a name": (lambda d: d["nodes"][0].update(target="x=print(1)"), "needed an identifier"),
    "code in a node": (lambda d: d["nodes"][1].update(name="a\nimport os"), "needed an identifier"),
    "code in a class": (lambda d: d.update(name="A:\n import os\nclass B"), "needed an identifier"),
    "code in a path": (
        lambda d: d["modules"].update({'a"); import os; ("': d["modules"].pop("head")}),
        "needed a path of plain names",
    ),
    **{
        f"a path into torch, {name}": (
            lambda d, name=name: d["modules"].update({name: d["modules"].pop("head")}),
            "needed a path of plain names",
        )
        for name in ("_modules", "graph", "meta", "a.forward", "a..b", "")
    },
    **{
        f"a node called {name}": (
            lambda d, name=name: d["nodes"][0].update(name=name),
            "needed an identifier" if name == "self" else "or Python",
        )
        for name in ("self", "torch", "print", "inf")
    },
    "an input called self": (lambda d: d["nodes"][0].update(target="self"), "needed an identifier"),
    "a node without its input": (lambda d: d["nodes"].pop(1), "before its inputs"),
    "two nodes of one name": (lambda d: d["nodes"][2].update(name=d["nodes"][1]["name"]), "which another node has"),
    "a node behind the output": (lambda d: d["nodes"].append(d["nodes"][0]), "behind the output"),
    "no output": (lambda d: d["nodes"].pop(), "found no output"),
    "a call of a method": (lambda d: d["nodes"][1].update(op="call_method"), "of another kind"),
    "an output that is code": (lambda d: d["nodes"][-1].update(value={"is": "call", "items": []}), "found an output"),
    "a huge sample": (lambda d: d["nodes"][0].update(shape=[2**20, 2**20]), "samples of 1,099,511,627,776 numbers"),
    "another shape": (lambda d: d["nodes"][2].update(shape=[8, 9, 9]), "the file says (8, 9, 9)"),
    "nothing": (lambda d: d.clear(), "found format None"),
    "deep values": (lambda d: d["meta"].update(notes=json.loads("[" * 300 + "]" * 300)), "found"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_description_is_refused(tmp_path, name):
    change, reason = CHANGES[name]
    header, description, content = parts(tmp_path / "a.anafx")
    change(description)
    write(tmp_path / "b.anafx", header, description, content)
    assert reason in refusal(tmp_path / "b.anafx")


def test_a_requantizer_is_proven_again(tmp_path):
    """A file that claims another multiplier than the trained formula's is not believed."""
    header, description, content = parts(tmp_path / "a.anafx")
    changed = bytearray(content)
    name = description["modules"]["hidden"]["multiply_shift"]["offset"]["name"]
    start, _ = header[name]["data_offsets"]
    changed[start + 2] ^= 0xFF
    write(tmp_path / "b.anafx", header, description, bytes(changed))
    assert "does not reach level" in refusal(tmp_path / "b.anafx")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h: h["000000"].update(dtype="OBJECT"), "found an array of 'OBJECT'"),
        (lambda h: h["000000"].update(shape=[2**62]), "does not fill its place"),
        (lambda h: h["000000"].update(shape=[-1]), "needed positive sizes"),
        (lambda h: h["000000"].update(shape=[0, 2**40]), "needed positive sizes"),
        (lambda h: h["000000"].update(data_offsets=[0, 2**40]), "does not fill its place"),
        (lambda h: h["000001"].update(data_offsets=h["000000"]["data_offsets"]), "does not fill its place"),
        (lambda h: h.update(another=7), "without its place"),
        (lambda h: h.pop("000000"), "does not fill its place"),
    ],
)
def test_arrays_that_do_not_fit_the_file_are_refused(tmp_path, change, reason):
    header, description, content = parts(tmp_path / "a.anafx")
    change(header)
    write(tmp_path / "b.anafx", header, description, content)
    assert reason in refusal(tmp_path / "b.anafx")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 8,
        b"\xff" * 100,
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 3) + b"NaN",
        struct.pack("<Q", 14) + b'{"a":1,"a":{}}',
        struct.pack("<Q", 2**63),
        b"PK\x03\x04" + b"\x00" * 100,
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path, data):
    (tmp_path / "a.anafx").write_bytes(data)
    refusal(tmp_path / "a.anafx")


def test_a_file_that_was_cut_or_grew_is_refused(tmp_path):
    ana_fx.save(converted(Chain), tmp_path / "a.anafx")
    data = (tmp_path / "a.anafx").read_bytes()
    for changed in (data[:-1], data[: len(data) // 2], data[:9], data + b"\x00"):
        (tmp_path / "b.anafx").write_bytes(changed)
        refusal(tmp_path / "b.anafx")


def test_what_is_no_regular_file_or_too_large_is_refused(tmp_path):
    ana_fx.save(converted(Chain), tmp_path / "a.anafx")
    assert "needed a regular file" in refusal(Path("/dev/zero"))
    assert "Is a directory" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "none")
    with pytest.raises(ana_fx.VerifyError, match="needed at most 1,000"):
        ana_fx.load(tmp_path / "a.anafx", largest=1000)
