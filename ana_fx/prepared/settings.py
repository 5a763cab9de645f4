"""With which settings a model was prepared, kept in its state so that no other settings are loaded into.

The settings are JSON in a buffer of bytes: states stay plain tensors, and DDP, averages and checkpoints carry it like
any other. Each character c is stored as 2·c + 1, since the average of equal bytes may come out one too low.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import GraphModule

from ana_fx.errors import SettingsError, listing
from ana_fx.graph import calls_of, quantizers
from ana_fx.layers.input_quantizers import InputQuantizer
from ana_fx.layers.operator_map import OperatorMap
from ana_fx.layers.quantizers import Quantizer
from ana_fx.precision.precision import Precision
from ana_fx.precision.precision_json import precision_from_json, precision_to_json
from ana_fx.requantizers.requantizer import Requantizer

__all__ = ["SETTINGS_BUFFER", "Settings", "keep_settings", "settings_of"]

SETTINGS_BUFFER = "quantization_settings"
_FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """What a model was prepared with, and what follows from it for the network that is deployed.

    Args:
        precision: As given to `prepare`, with the input type that was found.
        target: The target's name.
        layers: For each quantizer its levels and thresholds, for each affine map how it requantises.
    """

    precision: Precision
    target: str
    layers: Mapping[str, str]

    def __str__(self) -> str:
        return f"precision {json.dumps(precision_to_json(self.precision))}, target {self.target!r}"

    def to_text(self) -> str:
        """The settings as JSON, in ASCII."""
        parts = {"precision": precision_to_json(self.precision), "target": self.target, "layers": dict(self.layers)}
        return json.dumps({"format": _FORMAT, **parts}, ensure_ascii=True)

    @classmethod
    def from_text(cls, text: str) -> Settings:
        """What `to_text` wrote; ValueError if it is something else."""
        found = json.loads(text)
        if not isinstance(found, dict) or found.get("format") != _FORMAT:
            raise ValueError(f"needed settings of format {_FORMAT}, got {text[:80]!r}")
        target, layers = found.get("target"), found.get("layers")
        if not isinstance(target, str) or not isinstance(layers, dict):
            raise ValueError(f"needed a target and layers, got {text[:80]!r}")
        return cls(
            precision_from_json(found.get("precision")), target, {str(path): str(said) for path, said in layers.items()}
        )


def settings_of(state: Mapping[str, Any]) -> Settings | None:
    """The settings of the model that a state was saved from; None if it tells none, as states of older versions.

    Args:
        state: The `state_dict` of a prepared model, or of a module that holds one.

    Raises:
        SettingsError: They cannot be read.

    Examples:
        >>> import ana_fx
        >>> qat = ana_fx.prepare(torch.nn.Linear(3, 2), torch.rand(1, 3), precision="int4")
        >>> found = settings_of(qat.state_dict())
        >>> again = ana_fx.prepare(torch.nn.Linear(3, 2), precision=found.precision, target=found.target)
    """
    for name, tensor in state.items():
        if name == SETTINGS_BUFFER or name.endswith(f".{SETTINGS_BUFFER}"):
            return _decoded(tensor)
    return None


def keep_settings(gm: GraphModule, precision: Precision, target: str) -> None:
    """Keep in the state of a prepared model what it was prepared with, and refuse states of other settings."""
    text = Settings(_with_input_type(precision, gm), target, _layers(gm)).to_text()
    codes = torch.frombuffer(bytearray(text, "ascii"), dtype=torch.uint8)
    gm.register_buffer(SETTINGS_BUFFER, codes * 2 + 1)
    gm.register_load_state_dict_pre_hook(_check_settings)


def _check_settings(gm: GraphModule, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Before a state is loaded: what it shares with the model has the same settings.

    Names that only one of them has are left to torch, which refuses them unless the user says `strict=False`.
    """
    if not hasattr(gm, SETTINGS_BUFFER):  # an integer program, which is a copy without it
        return
    own = gm.get_buffer(SETTINGS_BUFFER)
    found = state.get(prefix + SETTINGS_BUFFER)
    state[prefix + SETTINGS_BUFFER] = own  # torch made this mapping for the call; older states tell no settings
    if found is None:
        return
    theirs, ours = _decoded(found), _decoded(own)
    lines = [
        f"{path}: the state has {theirs.layers[path]}, the model {said}"
        for path, said in ours.layers.items()
        if theirs.layers.get(path, said) != said
    ]
    if lines:
        raise SettingsError(
            listing(
                f"the state was trained with other settings than the model was prepared with: found {theirs}; needed "
                f"{ours}; {len(lines)} difference(s):",
                lines,
                f"give prepare() the precision and the target of ana_fx.settings_of(state); to train on from other "
                f"settings, delete {SETTINGS_BUFFER!r} from the state",
            )
        )


def _decoded(codes: Any) -> Settings:
    try:
        text = bytes((codes.detach().cpu() / 2).floor().to(torch.uint8).tolist()).decode("ascii")
        return Settings.from_text(text)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"cannot read the settings in the state: {error}; needed {SETTINGS_BUFFER!r} as ana_fx.prepare made it, or "
            f"a state without it"
        ) from error


def _with_input_type(precision: Precision, gm: GraphModule) -> Precision:
    """The precision with the type that the inputs were found to have, if they have one."""
    types = {each.integer_type for _, each in quantizers(gm) if isinstance(each, InputQuantizer)}
    return replace(precision, input=types.pop()) if precision.input == "auto" and len(types) == 1 else precision


def _layers(gm: GraphModule) -> dict[str, str]:
    """What decides, besides numbers in the state, which function each quantizer and operator map is."""
    found = {path: _levels(quantizer) for path, quantizer in quantizers(gm)}
    for node, layer_map in calls_of(gm, OperatorMap):
        if layer_map.stays_float:
            found[str(node.target)] = "float"
        elif layer_map.is_quantized:
            shift = layer_map.shift_arithmetic
            family = _family(layer_map.requantizer) if shift is None else f"shift in {shift.bits} bits"
            family += ", one shift for all channels" if shift is not None and shift.has_common_shift else ""
            found[str(node.target)] = f"{family}, weights stored {layer_map.factor}-fold"
    return found


def _family(requantizer: Requantizer) -> str:
    """How states name a formula; they knew the first two by what both compute with."""
    is_float32 = requantizer in (Requantizer.QLINEAR, Requantizer.XNNPACK)
    return "float32 requantizer" if is_float32 else f"{requantizer.value} requantizer"


def _levels(quantizer: Quantizer) -> str:
    integer_type = quantizer.integer_type
    shift = quantizer.rounding.offset - quantizer.offset
    moved = f", thresholds moved by {shift:g} steps" if shift else ""
    return f"{integer_type} [{integer_type.qmin}, {integer_type.qmax}], {quantizer.rounding.value}{moved}"
