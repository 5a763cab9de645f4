"""What a case is prepared with, drawn at random: a dictionary of plain values, so that it can stand in a file.

precision    arguments of `Precision`, or the name of a preset
schedule     arguments of `Schedule`, the name of a preset, or None, which is `Schedule()`
target       of prepare(); files are written for it and for `integer`
calibration  whether batches are given to prepare()
examples     whether example inputs are
steps        of training with an annealer; 0 is one forward pass in training mode
resumes      whether training ends in another copy of the model, which took the state of the first
threads      of torch, while the forms are compared
"""

from __future__ import annotations

import random
from typing import Any

import ana_fx

__all__ = ["DEFAULTS", "draw_settings", "precision_of", "schedule_of"]

DEFAULTS: dict[str, Any] = {
    "precision": "int8",
    "schedule": None,
    "target": "onnxruntime",
    "calibration": False,
    "examples": True,
    "steps": 0,
    "resumes": False,
    "threads": 1,
}
_WEIGHTS = ("ternary", "int2", "int3", "int4", "int5", "int6", "int7", "int8", "int8")
_ACTIVATIONS = ("ternary", "uint2", "uint3", "uint4", "uint6", "uint8", "uint8", "int4", "int8")
_VARIANTS = ("ste", "clipped-relu", "relu", "shifted-ste", "piecewise-polynomial", "error-function", "logistic")
_SCHEDULES = (*_VARIANTS, "lsq", "lsq", "whetstone")


def draw_settings(rng: random.Random) -> dict[str, Any]:
    """Any combination, as what differs from the defaults."""
    drawn = {
        "precision": _precision(rng) if rng.random() < 0.75 else rng.choice(("int8", "int4", "ternary", "all-ternary")),
        "schedule": _schedule(rng),
        "target": rng.choice(("onnxruntime", "integer", "qdq")),
        "calibration": rng.random() < 0.4,
        "examples": rng.random() < 0.9,
        "steps": rng.choice((0, 0, 0, 1, 2, 4)),
        "resumes": rng.random() < 0.15,
        "threads": rng.choice((1, 1, 1, 2, 4)),
    }
    return {key: value for key, value in drawn.items() if value != DEFAULTS[key]}


def _precision(rng: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {"weight": rng.choice(_WEIGHTS), "activation": rng.choice(_ACTIVATIONS)}
    if rng.random() < 0.2:
        image = {"mean": rng.choice((0.0, 0.45)), "std": rng.choice((0.22, 1.0))}
        found["input"] = rng.choice(("int8", "uint8", "int4", "uint4", image))
    if rng.random() < 0.2:
        found["output"] = rng.choice(("int8", "int8", "int8", "int32", "float"))
    if rng.random() < 0.35:
        found["rounding"] = "floor"
    if rng.random() < 0.2:
        found["first"] = rng.choice(_WEIGHTS)
    if rng.random() < 0.2:
        found["last"] = rng.choice(_WEIGHTS)
    if rng.random() < 0.15:
        found["overrides"] = {rng.choice(("conv*", "linear*", "*1", "norm*")): rng.choice(("int8", "int4", "ternary"))}
    return found


def _schedule(rng: random.Random) -> Any:
    kind = rng.random()
    if kind < 0.4:
        return None
    if kind < 0.7:
        return rng.choice(_SCHEDULES)
    return {
        "noise": rng.choice(("uniform", "triangular", "normal", "logistic")),
        "strategy": rng.choice(("expectation", "mode", "random")),
        "interval": rng.choice(("partition", "same_start", "same_end", "overlapped")),
        "power": rng.choice(("homogeneous", "progressive")),
        "mean": rng.choice(("static", "dynamic")),
        "variance": rng.choice(("static", "dynamic", "dynamic", "dynamic")),
        "learn_scales": rng.random() < 0.3,
    }


def precision_of(settings: dict[str, Any]) -> Any:
    """The argument of prepare()."""
    precision = settings["precision"]
    if isinstance(precision, str):
        return precision
    image = precision.get("input")
    return ana_fx.Precision(**precision | ({"input": ana_fx.ImageInput(**image)} if isinstance(image, dict) else {}))


def schedule_of(settings: dict[str, Any]) -> Any:
    """The argument of prepare()."""
    schedule = settings["schedule"] or {}
    return ana_fx.Schedule(**schedule) if isinstance(schedule, dict) else schedule
