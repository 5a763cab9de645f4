"""How an error names what it was given: briefly, and with the name that was probably meant."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

__all__ = ["brief", "unknown", "with_article"]

_LONGEST = 40  # characters of a value that is shown as it is


def brief(value: object) -> str:
    """A value in a few words: never its contents, where these may be many.

    >>> brief(np.zeros((2, 3)))
    'a numpy array, float64 (2, 3)'
    """
    if isinstance(value, Tensor):
        return f"{_dtype(value)} {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a numpy array, {value.dtype} {value.shape}"
    if isinstance(value, (DataLoader, Dataset, nn.Module)):
        return f"a {type(value).__name__}"
    if isinstance(value, Mapping):
        keys = list(map(repr, value))
        return f"a {type(value).__name__} of {', '.join(keys[:3])}{' …' * (len(keys) > 3)}" if keys else "an empty dict"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, (bool, int, float, str)):
        text = repr(value)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    if isinstance(value, (tuple, list)):
        text = f"a {type(value).__name__} of {len(value)}"
        return repr(value) if all(isinstance(each, int) for each in value) and len(value) < 9 else text
    return f"an object of type {type(value).__name__}"


def unknown(kind: str, found: Any, known: Collection[str]) -> str:
    """The message about a name that is not known, with the one that was probably meant.

    >>> unknown("precision", "INT4", ["ternary", "int4"])
    "unknown precision 'INT4', did you mean 'int4'? Known are 'ternary', 'int4'"
    """
    guess = _meant(found, known)
    hint = f", did you mean {guess!r}? Known" if guess else "; known"
    return f"unknown {kind} {brief(found)}{hint} are {', '.join(map(repr, known))}"


def with_article(noun: str) -> str:
    """A noun behind its article.

    >>> with_article("interpolation"), with_article("sum")
    ('an interpolation', 'a sum')
    """
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _meant(found: Any, known: Collection[str]) -> str | None:
    """The known name that is written most like what was found, or None if none is like it."""
    if isinstance(found, int) and f"int{found}" in known:  # a number of bits
        return f"int{found}"
    if not isinstance(found, str):
        return None
    plain = {_plain(name): name for name in known}
    wanted = _plain(found)
    begun = [name for name in plain if wanted and name.startswith(wanted)]
    close = [wanted] * (wanted in plain) or begun or get_close_matches(wanted, plain, n=1)
    if not close or _digits(wanted) not in ("", _digits(close[0])):  # another width is no slip of the pen
        return None
    return plain[close[0]]


def _plain(name: str) -> str:
    """A name without what people spell differently."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _digits(name: str) -> str:
    return "".join(filter(str.isdigit, name))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
