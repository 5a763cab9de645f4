"""Schedules by name: the variants of the straight-through estimator (STE), and what is known to work.

An STE computes σ in the forward pass and the derivative of another function in the backward pass. That
function is the expectation E[σ(x − ν)] for some noise ν (Spallanzani et al. 2022, sections 2.1 and 2.2).
For the Heaviside function σ = H it is the distribution function F of ν:

    name                  noise                       F(x)
    ste, hard-sigmoid     uniform on [−½, ½]          clip(x + ½, 0, 1)
    clipped-relu          uniform on [0, 1]           clip(x, 0, 1)
    piecewise-polynomial  triangular on [−½, ½]       2(x + ½)², 1 − 2(x − ½)²  (Liu et al. 2018)
    error-function        normal, 95 % in [−½, ½]     (1 + erf(x / (√2·β))) / 2
    logistic              logistic, 95 % in [−½, ½]   1 / (1 + exp(−x / s)), s = 1 / (2·ln 39)

x is counted in steps from the threshold. A quantizer with K levels is the sum of K − 1 such functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ana_fx.schedule.schedule import Schedule
from ana_fx.text.wording import unknown

__all__ = ["preset"]

_STATIC: Mapping[str, Any] = MappingProxyType({"mean": "static", "variance": "static", "strategy": "mode"})

_SETTINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "ste": _STATIC,
        "hard-sigmoid": _STATIC,
        "clipped-relu": {**_STATIC, "mean_constant": 0.5},
        "piecewise-polynomial": {**_STATIC, "noise": "triangular"},
        "error-function": {**_STATIC, "noise": "normal"},
        "logistic": {**_STATIC, "noise": "logistic"},
        "lsq": {**_STATIC, "learn_scales": True},
        "whetstone": {"strategy": "expectation", "std_power": 1.0},
        "best-static": _STATIC,
        "best-dynamic": {},
    }
)

_REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "relu": (
            "its density, 1 on [0, ∞), has no finite mass, so there is no such noise; with K levels its gradient would "
            "be the number of thresholds below x; 'clipped-relu' equals it up to one step above each threshold"
        )
    }
)


def preset(name: str) -> Schedule:
    """The schedule of that name.

    - `"ste"`, `"hard-sigmoid"`, `"clipped-relu"`, `"piecewise-polynomial"`, `"error-function"`,
      `"logistic"`: the STE variants, static. Forward is the quantizer, backward the derivative of its
      expectation. `"clipped-relu"` moves every threshold up by half a step, in the deployed network too.
    - `"lsq"`: `"ste"` with learned steps, whose gradient is then that of LSQ (Esser et al. 2020).
    - `"whetstone"`: activations and weights are sharpened one layer after the other from the input on, and
      the forward pass computes the ramps; their width falls linearly (Severa et al. 2019).
    - `"best-static"`: the paper finds that the family hardly matters and that mode ends best: `"ste"`.
    - `"best-dynamic"`: static mean, dynamic variance, partition, mode: the default schedule.

    Args:
        name: One of these. `dataclasses.replace` changes a part of a schedule.

    Raises:
        ValueError: The name is unknown, or names what is no noise, as `"relu"` does.

    >>> preset("lsq").learn_scales
    True
    """
    if name in _REFUSED:
        raise ValueError(f"no schedule is {name!r}: {_REFUSED[name]}")
    if name not in _SETTINGS:
        raise ValueError(unknown("schedule", name, _SETTINGS))
    return Schedule(**_SETTINGS[name])
