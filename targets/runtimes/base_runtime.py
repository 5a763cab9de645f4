"""A runtime: a package that runs files of one family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ana_fx.errors import VerifyError
from ana_fx.targets.files.regular_file import reason_of
from ana_fx.text.plain_text import plain
from ana_fx.text.wording import unknown

__all__ = ["Arrays", "Runtime", "runtime_among"]

Arrays = Mapping[str, np.ndarray[Any, Any]]

_LONGEST_REASON = 500


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

    def outputs(self, content: Any, feeds: Arrays, path: Path) -> list[np.ndarray[Any, Any]]:
        """Run the content of the file at `path`.

        Raises:
            VerifyError: It does not run.
        """
        try:
            return self.run(content, feeds)
        except Exception as error:  # the runtimes' errors share no base
            reason = plain(reason_of(error), _LONGEST_REASON)
            raise VerifyError(
                f"{path} does not run in {self.title} on this program's inputs: {reason}; "
                f"needed a file that export() wrote from this program, and a runtime that reads its target"
            ) from error


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
