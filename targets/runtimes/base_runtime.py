"""A runtime: a package that runs files of one family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np

from ana_fx.errors import VerifyError
from ana_fx.text.wording import unknown

__all__ = ["Arrays", "Runtime", "runtime_among"]

Arrays = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Runtime:
    """A package that runs files.

    Args:
        name: What `verify(runtimes=…)` takes.
        package: Its package.
        run: From the content of a file, as its family reads it, and named inputs to the outputs, in their order.
        samples: How many samples `verify` gives it at most, or None for all.
        extra: The extra of ana_fx that installs it.
        distribution: What brings the package, where that has another name.
    """

    name: str
    package: str
    run: Callable[[Any, Arrays], list[np.ndarray[Any, Any]]]
    samples: int | None = None
    extra: str = "consumers"
    distribution: str = ""

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {version(self.distribution or self.package)}"


def runtime_among(runtimes: Mapping[str, Runtime], name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        ValueError: There is none.
        VerifyError: Its package is not installed.
    """
    if name not in runtimes:
        raise ValueError(unknown("runtime", name, runtimes))
    runtime = runtimes[name]
    try:
        import_module(runtime.package)
    except ImportError as error:
        raise VerifyError(
            f"runtime {name!r} needs the package {runtime.package!r} ({error}); install ana_fx[{runtime.extra}]"
        ) from error
    return runtime
