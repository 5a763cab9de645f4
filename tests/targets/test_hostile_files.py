"""Files of strangers: one clear line, whatever they say, and nothing of theirs runs, grows or reaches a terminal.

They cover `onnx/model_file.py`, `onnx/onnx_parts.py`, `onnx/file_operators.py`, `files/arrays.py`,
`files/regular_file.py`, `limited_verify.py` too.
"""

from __future__ import annotations

import copy
import io
import json
import os
import random
import resource
import struct
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from typer.testing import CliRunner

import ana_fx
from ana_fx.target import ONNX
from ana_fx.target_registry import targets
from ana_fx.targets.command_line import app
from ana_fx.targets.compare import verify_files
from ana_fx.targets.files.arrays import read_archive, read_array
from ana_fx.targets.limited_verify import verify_in_limits
from ana_fx.targets.onnx.file_operators import OPERATORS
from ana_fx.targets.onnx.model_file import read_model
from tests.models import Chain
from tests.programs import converted
from tests.targets.files.test_program_file import programs


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("good") / "model.onnx"
    ana_fx.export(converted(Chain), path, labels=[f"class {index}" for index in range(10)])
    return path


def with_metadata(key: str, value: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for entry in model.metadata_props:
            if entry.key == key:
                entry.value = value
                return
        model.metadata_props.add(key=key, value=value)

    return change


def with_node(op_type: str, domain: str = "", **attributes: Any) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        node = helper.make_node(op_type, [model.graph.input[0].name], ["more"], "more", domain=domain, **attributes)
        model.graph.node.append(node)
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


def with_loop(model: onnx.ModelProto) -> None:
    """A loop that goes on as long as "true" is true, so for ever."""
    forever = helper.make_tensor("forever", TensorProto.BOOL, [], [True])
    names = [("i", TensorProto.INT64), ("before", TensorProto.BOOL), ("after", TensorProto.BOOL)]
    count, before, after = (helper.make_tensor_value_info(name, kind, []) for name, kind in names)
    body = helper.make_graph([helper.make_node("Identity", ["before"], ["after"])], "body", [count, before], [after])
    model.graph.initializer.append(forever)
    model.graph.node.append(helper.make_node("Loop", ["", "forever"], [], "loop", body=body))


def with_function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("strange", "f", [], [], [], [helper.make_opsetid("", 19)]))


def with_tensor(**fields: Any) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.initializer.append(TensorProto(name="more", **fields))


def with_external_data(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")


def with_huge_input(model: onnx.ModelProto) -> None:
    for size in model.graph.input[0].type.tensor_type.shape.dim[1:]:
        size.dim_value = 2**40


def without_input(model: onnx.ModelProto) -> None:
    model.graph.ClearField("input")


def without_opset(model: onnx.ModelProto) -> None:
    model.ClearField("opset_import")


UNREADABLE: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "labels that are a number": (with_metadata("ana_fx.labels", "5"), "say no list of 'ana_fx.labels'"),
    "labels that are numbers": (with_metadata("ana_fx.labels", "[1]"), "say no list of 'ana_fx.labels'"),
    "labels that are nothing": (with_metadata("ana_fx.labels", "null"), "say no list of 'ana_fx.labels'"),
    "labels that are no JSON": (with_metadata("ana_fx.labels", "{"), "say no list of 'ana_fx.labels'"),
    "labels without an end": (with_metadata("ana_fx.labels", "[" * 100_000), "say no list of 'ana_fx.labels'"),
    "labels of 50 MB": (with_metadata("ana_fx.labels", json.dumps(["x" * 50_000_000])), "of 50,000,004 characters"),
    "a gain that is an object": (with_metadata("x.pixel_gain", '{"a":1}'), "the metadata do not describe 'x'"),
    "a gain of zero": (with_metadata("x.pixel_gain", "[0.0]"), "the metadata do not describe 'x'"),
    "a gain that is no number": (with_metadata("x.pixel_gain", "[NaN]"), "the metadata do not describe 'x'"),
    "gains for other channels": (with_metadata("x.pixel_gain", "[1,2,3,4,5]"), "5 numbers for samples"),
    "a scale that is text": (with_metadata("x.scale", "one"), "the metadata do not describe 'x'"),
    "a scale of zero": (with_metadata("x.scale", "0.0"), "needed a positive number"),
    "a scale that is no number": (with_metadata("x.scale", "nan"), "needed a positive number"),
    "an endless zero point": (with_metadata("x.zero_point", "9" * 10_000), "needed one in [0, 255]"),
    "a negative zero point": (with_metadata("x.zero_point", "-1"), "needed one in [0, 255]"),
    "an unknown type": (with_metadata("x.type", "complex"), "needed an integer type"),
    "external data": (with_external_data, "tensors in other files"),
    "a tensor that is not there": (with_tensor(data_type=TensorProto.FLOAT, dims=[2**40]), "holds 0 numbers"),
    "a tensor of negative size": (with_tensor(data_type=TensorProto.INT8, dims=[-1, -1]), "holds 0 numbers"),
    "a tensor with too many numbers": (with_tensor(data_type=1, dims=[1], raw_data=b"\0" * 80), "holds 20 numbers"),
    "a tensor of texts": (with_tensor(data_type=TensorProto.STRING, dims=[0]), "needed numbers"),
    "a tensor of no known type": (with_tensor(data_type=99, dims=[1], raw_data=b"\0"), "needed numbers"),
    "an input of 2^120 numbers": (with_huge_input, "needed at most"),
    "an endless loop": (with_loop, "found graphs inside of nodes"),
    "functions": (with_function, "found functions"),
    "an operator that ONNX has not": (with_node("Explode"), "needed a file that export() wrote"),
    "no input": (without_input, "needed a file that export() wrote"),
    "no opset": (without_opset, "it holds no graph"),
}

UNRUN: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "an operator with a random result": (with_node("Dropout"), "none that export() writes: Dropout"),
    "an operator that grows": (with_node("Tile"), ""),
    "an operator of another domain": (with_node("Run", "os"), "none that export() writes: os::Run"),
    "an operator that names a module": (with_node("Quant", "evil.module"), "evil.module::Quant"),
}


def written(good: Path, folder: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    model = onnx.load(good)
    change(model)
    path = folder / "hostile.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def refusal(function: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(ana_fx.VerifyError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 2000
    return message


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_file_that_lies_is_refused(good, tmp_path, kind):
    change, reason = UNREADABLE[kind]
    path = written(good, tmp_path, change)
    assert reason in refusal(ana_fx.inspect, path)
    result = CliRunner().invoke(app, ["inspect", str(path)])
    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("kind", UNRUN)
def test_an_operator_that_export_does_not_write_is_not_run(good, tmp_path, kind):
    change, reason = UNRUN[kind]
    path = written(good, tmp_path, change)
    assert reason in refusal(ana_fx.verify, converted(Chain), path)


def test_every_operator_that_a_target_writes_may_run(tmp_path):
    used = set()
    for make in programs():
        program, _ = make()
        for target in (each for each in targets() if each.file_format == ONNX):
            for borders in target.borders:
                try:
                    ana_fx.export(program, tmp_path / "network.onnx", target=target.name, io=borders)
                except (ana_fx.ExportError, onnx.shape_inference.InferenceError):
                    continue  # another test's matter
                used |= {(node.domain, node.op_type) for node in onnx.load(tmp_path / "network.onnx").graph.node}
    assert used <= OPERATORS
    assert len(used) > 30


# what reaches the terminal

ESCAPES = "\x1b[31mred\x1b]0;title\x07 [/red] [bold] \u202e \r \n"


@pytest.mark.parametrize("key", ["ana_fx.target", "ana_fx.io", "ana_fx.labels"])
def test_metadata_are_shown_as_they_are(good, tmp_path, key):
    value = json.dumps([ESCAPES]) if key == "ana_fx.labels" else ESCAPES
    result = CliRunner().invoke(app, ["inspect", str(written(good, tmp_path, with_metadata(key, value)))])
    assert result.exit_code == 0, result.output
    assert "[/red]" in result.stdout
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(result.output)


def test_names_of_operators_and_files_are_shown_as_they_are(good, tmp_path):
    path = written(good, tmp_path, with_node(ESCAPES, "os"))
    path = path.rename(tmp_path / f"{ESCAPES.replace('/', '')}.onnx")
    for arguments in (["inspect", str(path)], ["verify", str(path), "--against", "program.pt2"]):
        result = CliRunner().invoke(app, arguments)
        assert not {"\x1b", "\x07", "\u202e", "\r"} & set(result.output)


def test_a_description_shows_names_as_they_are(tmp_path):
    program = copy.deepcopy(converted(Chain))
    program.meta["target"], program.meta["notes"] = ESCAPES, [ESCAPES]
    shown = str(ana_fx.describe(program))
    assert "[/red]" in shown
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(shown)


def test_a_module_may_be_called_like_markup():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({"[/red]": nn.Linear(4, 4)})

        def forward(self, x: Tensor) -> Tensor:
            return self.parts["[/red]"](x).relu()

    x = torch.rand(2, 4)
    assert "parts.[/red]" in str(ana_fx.describe(ana_fx.prepare(Named(), x, calibration=[x])))


# size


def nodes(number: int) -> bytes:
    """A model of that many empty nodes, two bytes each."""
    graph = b"\x0a\x00" * number
    return b"\x3a" + varint(len(graph)) + graph


def varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def test_twenty_megabytes_of_empty_nodes_are_not_built(tmp_path):
    path = tmp_path / "bomb.onnx"
    path.write_bytes(nodes(10_000_000))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    assert "found more than 2,000,000 parts" in refusal(read_model, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB; it were gigabytes
    assert time.perf_counter() - start < 60


def test_what_protobuf_nests_without_end_is_not_built(tmp_path):
    data = b""
    for _ in range(2000):
        data = b"\x0b" + data  # a group in a group
    for content in (data, b"\xff" * 10_000, b"\x3a\xff\xff\xff\xff\x0f", nodes(3)[:-1]):
        (tmp_path / "bad.onnx").write_bytes(content)
        assert "it is no ONNX model" in refusal(read_model, tmp_path / "bad.onnx")


def test_what_is_no_regular_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (Path("/dev/zero"), tmp_path / "pipe.onnx", tmp_path):
        for read in (read_model, read_array, read_archive, ana_fx.load):
            refusal(read, path)
        assert CliRunner().invoke(app, ["inspect", str(path)]).exit_code == 1


def test_limits_can_be_given(good):
    with pytest.raises(ana_fx.VerifyError, match="needed at most 100"):
        read_model(good, largest=100)
    with pytest.raises(ana_fx.VerifyError, match="found more than 10 parts"):
        read_model(good, most_parts=10)


@pytest.mark.parametrize("size", [0, 1, 10, 100, 1000, -1])
def test_a_file_that_was_cut_is_refused(good, tmp_path, size):
    (tmp_path / "cut.onnx").write_bytes(good.read_bytes()[:size])
    refusal(ana_fx.inspect, tmp_path / "cut.onnx")


def mutations(data: bytes, number: int) -> Iterator[bytes]:
    """The file with bytes changed, left out, doubled or cut, as the seed says."""
    chance = random.Random(0)
    for _ in range(number):
        changed = bytearray(data)
        for _ in range(chance.choice([1, 1, 3, 20])):
            place = chance.randrange(len(changed))
            length = chance.choice([1, 1, 4, 100])
            changed[place : place + length] = chance.choice(
                [chance.randbytes(length), b"", bytes(length), changed[place : place + length] * 2]
            )
        yield bytes(changed)


def outcome(read: Callable[[Path], object], path: Path) -> str:
    """Read, or refused in one line."""
    try:
        read(path)
    except ana_fx.VerifyError as error:
        return "refused" if len(str(error).splitlines()) == 1 else f"refused at length: {error}"
    return "read"


@pytest.mark.parametrize("number", [150, pytest.param(3000, marks=pytest.mark.slow)])
def test_mutated_files_are_read_or_refused(good, tmp_path, number):
    ana_fx.save(converted(Chain), tmp_path / "good.anafx")
    for file, read in ((good, ana_fx.inspect), (tmp_path / "good.anafx", ana_fx.load)):
        outcomes = Counter[str]()
        for data in mutations(file.read_bytes(), number):
            (tmp_path / "mutated").write_bytes(data)
            outcomes[outcome(read, tmp_path / "mutated")] += 1
        assert outcomes.keys() <= {"read", "refused"}
        assert outcomes["refused"] > number / 10


# arrays


def header(shape: str, kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as written_to:
        for name, data in members.items():
            written_to.writestr(f"{name}.npy", data)
    return file.getvalue()


def stored(array: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


ARRAYS = {
    "an archive": archive(x=stored(np.zeros(3))),
    "131 TiB": header("(12009599006321,3)"),
    "nothing": stored(np.zeros((0, 3, 10, 10), np.float32)),
    "objects": stored(np.array([{}], dtype=object), allow_pickle=True),
    "texts": stored(np.array(["a"])),
    "records": stored(np.zeros(2, [("a", "i4")])),
    "complex numbers": stored(np.zeros(2, np.complex64)),
    "a negative shape": header("(-1,)"),
    "no shape": header("None"),
    "code for a shape": header("(__import__('os').getpid(),)"),
    "cut numbers": stored(np.zeros(100))[:-1],
    "cut header": stored(np.zeros(100))[:20],
    "a pickle": b"\x80\x04N.",
    "no bytes": b"",
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_what_is_no_array_of_numbers_is_refused(good, tmp_path, kind):
    (tmp_path / "x.npy").write_bytes(ARRAYS[kind])
    assert "needed an array of numbers" in refusal(read_array, tmp_path / "x.npy")
    (tmp_path / "x.npz").write_bytes(archive(x=ARRAYS[kind]))
    assert "needed arrays of numbers" in refusal(read_archive, tmp_path / "x.npz")


def test_no_more_is_unpacked_than_is_allowed(tmp_path):
    (tmp_path / "bomb.npz").write_bytes(archive(x=stored(np.zeros(10_000_000, np.uint8))))
    assert (tmp_path / "bomb.npz").stat().st_size < 100_000
    with pytest.raises(ana_fx.VerifyError, match="needed at most 1,000,000"):
        read_archive(tmp_path / "bomb.npz", largest=1_000_000)


def test_no_numbers_are_no_success(good, tmp_path):
    """It was seen that "0 of 0 outputs differ" ended with exit code 0."""
    np.save(tmp_path / "empty.npy", np.zeros((0, 3, 10, 10), np.float32))
    ana_fx.save(converted(Chain), tmp_path / "program.anafx")
    refusal(verify_files, good, tmp_path / "program.anafx", [tmp_path / "empty.npy"])


def test_a_state_that_is_packed_is_refused_before_it_is_unpacked(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", b"\0" * 50_000_000)
    (tmp_path / "state.pt").write_bytes(file.getvalue())
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 10, 10), np.float32))
    arguments = ["--state", str(tmp_path / "state.pt"), "--example", str(tmp_path / "x.npy")]
    result = CliRunner().invoke(app, ["export", "tests.models:Chain", str(tmp_path / "a.onnx"), *arguments])
    assert result.exit_code == 1
    assert "it unpacks to 50,000,000 bytes" in result.stderr


# limits of time and memory


def test_a_file_that_takes_too_long_is_stopped(good, tmp_path):
    ana_fx.save(converted(Chain), tmp_path / "program.anafx")
    arguments = (good, tmp_path / "program.anafx", [])
    with pytest.raises(ana_fx.VerifyError, match=r"stopped after 0\.2 seconds; give --seconds"):
        verify_in_limits(*arguments, trusts_code=False, seconds=0.2, gigabytes=8)


def test_a_file_that_takes_too_much_memory_is_stopped(good, tmp_path):
    """A third of a megabyte that unpacks to a million images."""
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as bomb,
        bomb.open("x.npy", "w", force_zip64=True) as member,
    ):
        member.write(header("(1000000,3,10,10)", "|u1"))
        for _ in range(300):
            member.write(bytes(1_000_000))
    arguments = (good, tmp_path / "bomb.npz", [])
    with pytest.raises(ana_fx.VerifyError, match=r"give --gigabytes"):
        verify_in_limits(*arguments, trusts_code=False, seconds=600, gigabytes=0.2)
