"""Schedules by name: the variants of the straight-through estimator (STE), and what is known to work.

An STE computes the target σ in the forward pass and the derivative of a regularisation σ̃ in the backward pass
(Spallanzani et al. 2022, section 2.1). For most variants σ̃ is the expectation E[σ(x − ν)] for some noise ν (Proposition
1), so for the Heaviside function σ = H, equation 2, the distribution function of ν (section 2.2):

    name                  ν                           σ̃(x) for σ = H
    ste, hard-sigmoid     uniform on [−½, ½]          clip(x + ½, 0, 1)         equation 3 with α = 0, β = 1 / 2√3
    clipped-relu          uniform on [0, 1]           clip(x, 0, 1)             equation 3 with α = ½, β = 1 / 2√3
    relu                  none: improper              max(0, x)                 section 2.1
    piecewise-polynomial  triangular on [−½, ½]       2(x + ½)², 1 − 2(x − ½)²  section 2.2 (Liu et al. 2018)
    error-function        normal, 95 % in [−½, ½]     (1 + erf(x / (√2·β))) / 2
    logistic              logistic, 95 % in [−½, ½]   1 / (1 + exp(−x / s)), s = 1 / (2·ln 39)

x is counted in steps from the threshold. A quantizer with K levels (equation 1) is the sum of K − 1 functions H, and
its σ̃ the sum of as many σ̃. The thresholds of the forward pass and of the deployed network are σ's, whatever σ̃ is.
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
        "clipped-relu": {**_STATIC, "gradient_mean": 0.5},
        "relu": {**_STATIC, "gradient": "relu"},
        "piecewise-polynomial": {**_STATIC, "noise": "triangular"},
        "error-function": {**_STATIC, "noise": "normal"},
        "logistic": {**_STATIC, "noise": "logistic"},
        "shifted-ste": {**_STATIC, "mean_constant": 0.5},
        "lsq": {**_STATIC, "learn_scales": True},
        "whetstone": {"strategy": "expectation", "std_power": 1.0},
        "best-static": _STATIC,
        "best-dynamic": {},
    }
)


def preset(name: str) -> Schedule:
    """The schedule of that name.

    - `"ste"`, `"hard-sigmoid"`, `"clipped-relu"`, `"piecewise-polynomial"`, `"error-function"`,
      `"logistic"`: the STE variants, static. Forward is the quantizer, backward the derivative of the function above.
    - `"relu"`: likewise, but improper: the gradient is the number of thresholds at or below x, 1 for two levels. For
      many levels it grows with x; it is meant for one or two bits.
    - `"shifted-ste"`: `"ste"` with every threshold half a step higher, in the deployed network too; as `"ste"` with
      `Precision(rounding="floor")`. It was called `"clipped-relu"` before that became the paper's function.
    - `"lsq"`: `"ste"` with learned steps, whose gradient is then that of LSQ (Esser et al. 2020). It is what `prepare`
      takes when told nothing: of what was measured it ends best (docs/accuracy.md).
    - `"whetstone"`: activations and weights are sharpened one layer after the other from the input on, and
      the forward pass computes the ramps; their width falls linearly (Severa et al. 2019).
    - `"best-static"`: the paper finds that the family hardly matters and that mode ends best: `"ste"`.
    - `"best-dynamic"`: static mean, dynamic variance, partition, mode: `Schedule()`, the paper's annealing.

    Args:
        name: One of these. `dataclasses.replace` changes a part of a schedule.

    Raises:
        ValueError: The name is unknown.

    Examples:
        >>> preset("lsq").learn_scales
        True
    """
    if name not in _SETTINGS:
        raise ValueError(unknown("schedule", name, _SETTINGS))
    return Schedule(**_SETTINGS[name])
