"""The targets there are: ours, and those that other packages register."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from rich.console import Console
from rich.table import Table

from ana_fx.target import OPERATORS, FileFormat, Requantizer, Target
from ana_fx.text.printed import printed
from ana_fx.text.wording import unknown

__all__ = ["ENTRY_POINTS", "TargetList", "find_target", "target_called", "targets"]

ENTRY_POINTS = "ana_fx.targets"  # a group whose objects are a Target each

# What the QLinear operators of onnxruntime multiply in pairs; averages and rescales are depthwise, and kept as safe.
_PAIRED = frozenset({"average", "convolution", "identity", "linear"})
_LAYERS = frozenset({"average", "convolution", "identity", "linear", "max_pool", "movement", "reduce", "sum"})

_TFLITE = FileFormat(".tflite", "ana_fx.targets.tflite.tflite_family:TFLITE_FAMILY")

_TOSA = FileFormat(".tosa", "ana_fx.targets.tosa.tosa_family:TOSA_FAMILY")

_TFLITE_LIMITS: dict[str, Any] = {
    "operators": _LAYERS | {"maximum", "minimum", "product", "softmax", "table"},
    "activation_bits": (2, 8),
    "holds_codebooks": False,
    "spatial_axes": frozenset({1, 2}),
    "holds_floats": False,
    "holds_logits": False,
    "aligned_sums": True,
    "borders": ("integer",),
    "file_format": _TFLITE,
}

_BUILT_IN = (
    Target(
        "onnxruntime",
        "QLinear operators, for onnxruntime on x86 and Arm",
        emitter="ana_fx.targets.dialects.qlinear:ONNXRUNTIME",
        requantizer=Requantizer.QLINEAR,
        sums_pairs_in_16_bits=_PAIRED,
    ),
    Target(
        "onnxruntime-vnni",
        "the same with all 8 bits of a weight, for Arm and for x86 with VNNI; inexact on other x86 processors",
        emitter="ana_fx.targets.dialects.qlinear:ONNXRUNTIME",
        requantizer=Requantizer.QLINEAR,
        saturates=True,
    ),
    Target(
        "integer",
        "standard integer operators only, for any reader of ONNX",
        emitter="ana_fx.targets.dialects.integer:INTEGER",
        sums_pairs_in_16_bits=frozenset({"linear"}),  # MatMulInteger, but not ConvInteger
        runtimes=("onnxruntime", "onnx.reference"),
    ),
    Target(
        "qdq",
        "QuantizeLinear and DequantizeLinear around float operators; weights as INT8, INT4 or INT2",
        emitter="ana_fx.targets.dialects.qdq:QDQ",
        requantizer=Requantizer.QLINEAR,
        sums_pairs_in_16_bits=_PAIRED,
        exact_runtimes=("onnxruntime",),
    ),
    Target(
        "qdq-int8",
        "the same with all weights as INT8, for OpenVINO, tract and other readers that know no narrower type",
        emitter="ana_fx.targets.dialects.qdq:QDQ_INT8",
        requantizer=Requantizer.QLINEAR,
        sums_pairs_in_16_bits=_PAIRED,
        exact_runtimes=("onnxruntime",),
    ),
    Target(
        "qonnx",
        "Quant nodes around float operators on integers, for the qonnx package and hls4ml",
        emitter="ana_fx.targets.dialects.qonnx:QONNX",
        requantizer=Requantizer.QLINEAR,
        accumulator_bits=25,  # float32 holds the integers of 24 bits and a sign
        holds_floats=False,
        runtimes=("qonnx",),
    ),
    Target(
        "qonnx-multithreshold",
        "the same with MultiThreshold nodes, for FINN",
        emitter="ana_fx.targets.dialects.qonnx:MULTI_THRESHOLD",
        requantizer=Requantizer.QLINEAR,
        accumulator_bits=25,
        holds_floats=False,
        runtimes=("qonnx",),
    ),
    Target(
        "deeploy",
        "RequantShift, for Deeploy: C for generic CPUs and microcontrollers",
        emitter="ana_fx.targets.microcontrollers.deeploy:DEEPLOY",
        operators=_LAYERS,
        weight_bits=(2, 8),
        activation_bits=(2, 8),
        holds_codebooks=False,
        spatial_axes=frozenset({1, 2}),
        holds_floats=False,
        requantizer_bits=32,
        common_shift=True,
        aligned_sums=True,
        borders=("integer",),
        runtimes=("reference-kernels",),
    ),
    Target(
        "dory",
        "Mul, Add, Div, Floor, Clip on floats that hold integers, for DORY: C for PULP chips",
        emitter="ana_fx.targets.microcontrollers.dory:DORY",
        operators=_LAYERS,
        weight_bits=(2, 8),
        activation_bits=(2, 8),
        holds_codebooks=False,
        spatial_axes=frozenset({2}),
        holds_floats=False,
        requantizer_bits=32,
        common_shift=True,
        aligned_sums=True,
        whole_ranges=True,
        borders=("integer",),
        runtimes=("reference-kernels",),
    ),
    Target(
        "litert",
        "TFLite files for LiteRT with XNNPACK, its default on phones and Linux",
        emitter="ana_fx.targets.tflite.tflite_dialect:TFLITE",
        requantizer=Requantizer.XNNPACK,
        runtimes=("litert",),
        **_TFLITE_LIMITS,
    ),
    Target(
        "tflite-micro",
        "TFLite files for TFLite Micro and CMSIS-NN: microcontrollers",
        emitter="ana_fx.targets.tflite.tflite_dialect:TFLITE",
        packs_four_bits=True,  # XNNPACK has no such kernel, so that the two other targets store bytes
        requantizer=Requantizer.Q31,
        runtimes=("tflite-micro", "litert-reference"),
        **_TFLITE_LIMITS,
    ),
    Target(
        "tflite",
        "TFLite files with one answer in LiteRT, with and without XNNPACK, TFLite Micro and CMSIS-NN",
        emitter="ana_fx.targets.tflite.tflite_dialect:TFLITE",
        least_headroom=2,  # without, there is no bias on which all kernels agree
        requantizer=Requantizer.EVERY_TFLITE,
        runtimes=("litert", "litert-builtin", "litert-reference", "tflite-micro"),
        **_TFLITE_LIMITS,
    ),
    Target(
        "tosa",
        "TOSA files of the integer profile, for Ethos-U and what else reads Arm's operator set",
        emitter="ana_fx.targets.tosa.tosa_dialect:TOSA",
        operators=_LAYERS | {"maximum", "minimum", "product", "softmax", "table"},
        activation_bits=(2, 8),
        holds_codebooks=False,
        spatial_axes=frozenset({1, 2}),
        holds_floats=False,
        requantizer=Requantizer.SINGLE_ROUNDING,
        borders=("integer",),
        runtimes=("tosa-reference-model",),
        file_format=_TOSA,
    ),
)


class TargetList(tuple[Target, ...]):
    """Targets; prints as a table of what each accepts."""

    def __str__(self) -> str:
        return printed(self, Console(width=160, no_color=True))

    def __rich__(self) -> Table:
        """The table, for rich consoles."""
        table = Table("target", "what it is", "weights", "activations", "requantizer", "layer maps", "borders")
        for each in self:
            signs = "" if each.signed_activations else ", unsigned"
            is_all = each.operators == OPERATORS
            table.add_row(
                each.name,
                each.summary,
                _bits(each.weight_bits),
                f"{_bits(each.activation_bits)}{signs}",
                _requantizer(each),
                "all" if is_all else ", ".join(sorted(each.operators)),
                ", ".join(each.borders),
            )
        return table


def targets() -> TargetList:
    """Every target: the built-in ones, then those of the entry points, by name.

    Raises:
        TypeError: An entry point is not a Target.
        ValueError: Two targets have one name, or one names an operator that nobody registered.
    """
    found = list(_BUILT_IN)
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        target = entry.load()
        if not isinstance(target, Target):
            raise TypeError(
                f"entry point {entry.value!r} of {ENTRY_POINTS} is {type(target).__name__}, needed a Target"
            )
        if target.name in {each.name for each in found}:
            raise ValueError(
                f"entry point {entry.value!r} of {ENTRY_POINTS}: there is a target {target.name!r} already"
            )
        target.check_operators()
        found.append(target)
    return TargetList(found)


def target_called(name: str) -> Target:
    """The target of that name; ValueError if there is none."""
    if isinstance(name, Target):
        raise TypeError(f"a target is given by its name, got the Target itself; write target={name.name!r}")
    found = find_target(name)
    if found is None:
        raise ValueError(unknown("target", name, [target.name for target in targets()]))
    return found


def find_target(name: str) -> Target | None:
    """The target of that name, or None: that of another package may not be here."""
    known = {target.name: target for target in _BUILT_IN}
    if name not in known:  # only then: reading the entry points of all packages takes time
        known = {target.name: target for target in targets()}
    return known.get(name)


def _requantizer(target: Target) -> str:
    named = {Requantizer.QLINEAR: "QLinear, float32", Requantizer.SHIFT: f"shift, {target.requantizer_bits} bits"}
    parts = [named.get(target.requantizer, target.requantizer.value)]
    parts += ["one slope a layer"] * (not target.per_channel)
    parts += ["one shift a layer"] * target.common_shift
    return ", ".join(parts)


def _bits(bits: tuple[int, int]) -> str:
    return f"{bits[0]} to {bits[1]} bits"
