"""The outputs of a model as containers that a graph can make, and back as the class that the model gave."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from torch.fx.graph import CodeGen

__all__ = ["OutputOfClass", "class_of", "plain"]


def plain(output: Any) -> Any:
    """Return an output as tuples, lists and dictionaries, the only containers that a graph makes."""
    if is_dataclass(output) and not isinstance(output, (dict, type)):
        return {each.name: plain(getattr(output, each.name)) for each in fields(output)}
    if isinstance(output, dict):
        return {key: plain(value) for key, value in output.items()}
    if isinstance(output, (tuple, list)):
        entries = [plain(each) for each in output]
        return tuple(entries) if isinstance(output, tuple) else entries
    return output


def class_of(output: Any) -> type | None:
    """The class of a dictionary with fields, as `ModelOutput` of Hugging Face is one; None for all else."""
    has_fields = is_dataclass(output) and not isinstance(output, type)
    return type(output) if has_fields and isinstance(output, dict) else None


class OutputOfClass(CodeGen):
    """Writes a graph whose `forward` gives its dictionary as an object of a class; its nodes keep the dictionary.

    Args:
        kind: The class; its arguments are the keys.
    """

    def __init__(self, kind: type) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.kind = kind
        self._make = partial(
            kind
        )  # the class itself may stand in the code already, as an annotation under another name

    def __deepcopy__(self, memo: dict[int, Any]) -> OutputOfClass:
        """The class stays what it is."""
        return OutputOfClass(self.kind)

    def generate_output(self, *args: Any, **kwargs: Any) -> str:
        """`return kind(**{…})`."""
        written = super().generate_output(*args, **kwargs)
        return f"return {_NAME}(**{written.removeprefix('return ')})"

    def additional_globals(self) -> list[tuple[str, Any]]:
        """The class, as the code calls it."""
        return [(_NAME, self._make)]


_NAME = "_class_of_the_output"
