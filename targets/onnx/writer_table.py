"""Tables from what stands in a program to the function that writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

__all__ = ["WriterTable"]

Written = TypeVar("Written")
Function = TypeVar("Function", bound=Callable[..., Any])


class WriterTable(Mapping[type, Callable[..., Written]]):
    """A table from classes of operators or modules to their writers; a class is looked up as it is, not by its bases.

    The file that owns the table fills it; other files read it, and make tables of their own from it.

    Args:
        owner: `__name__` of that file.

    Examples:
        >>> table = WriterTable(__name__)
        >>> @table.writes(int, bool)
        ... def write_number(w, number):
        ...     return str(number)
        >>> table[bool](None, True)
        'True'
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._writers: dict[type, Callable[..., Written]] = {}

    def writes(self, *kinds: type) -> Callable[[Function], Function]:
        """Enter the decorated function as the writer of these classes.

        Raises:
            ValueError: The function stands in another file than the table, or a class has a writer already.
        """

        def enter(writer: Function) -> Function:
            if writer.__module__ != self._owner:
                raise ValueError(
                    f"the table of {self._owner} is not changed from {writer.__module__}; extend a dialect"
                )
            for kind in kinds:
                if kind in self._writers:
                    raise ValueError(f"{kind.__name__} has a writer already: {self._writers[kind].__name__}")
                self._writers[kind] = writer
            return writer

        return enter

    def __getitem__(self, kind: type) -> Callable[..., Written]:
        return self._writers[kind]

    def __iter__(self) -> Iterator[type]:
        return iter(self._writers)

    def __len__(self) -> int:
        return len(self._writers)
