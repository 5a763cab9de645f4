"""Proxies that know their sizes, so that model code can compute with them as with those of tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Node, Proxy
from torch.fx.node import map_aggregate
from torch.fx.proxy import Attribute

__all__ = ["Knowledge", "KnownProxy", "constant", "is_in_place", "settled"]

_BATCHES = (1, 6, 35)  # times that of the example: no comparison, quotient or remainder is alike for all by chance
_NEW = ("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor")
_LIKE = (torch.zeros_like, torch.ones_like, torch.full_like, torch.empty_like)


class Knowledge:
    """What every operation gives for some batch sizes, as tensors without numbers: nothing is computed.

    What agrees for all is a constant; what differs depends on the batch and stays in the graph.
    """

    def __init__(self) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.failure: str | None = None  # what the first operation said that could not be evaluated
        self.is_evaluating = False  # then modules and parameters are to behave as outside tracing

    def example(self, x: Tensor) -> tuple[Any, ...]:
        """The batches in place of an example with a leading batch axis."""
        with self.mode:
            shapes = [(times * x.shape[0], *x.shape[1:]) if x.dim() else () for times in _BATCHES]
            return tuple(torch.empty(shape, dtype=x.dtype, device=x.device) for shape in shapes)

    def parameter(self, x: Tensor) -> tuple[Any, ...]:
        """The same for a tensor of the model, which depends on no batch."""
        return (self.mode.from_tensor(x),) * len(_BATCHES)

    def evaluate(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, ...] | None:
        """What `fn` gives for each, or None if an argument is unknown or `fn` needs numbers."""
        calls = [_unwrapped((args, kwargs), index) for index in range(len(_BATCHES))]
        if None in calls:
            return None
        self.is_evaluating = True
        try:
            with self.mode, torch.no_grad():
                return tuple(fn(*positional, **keywords) for positional, keywords in calls)
        except Exception as error:  # what does not fit is explained when the graph runs on the example
            self.failure = self.failure or (str(error).splitlines() or [type(error).__name__])[0]
            return None
        finally:
            self.is_evaluating = False


class _UnknownError(Exception):
    """An argument of which nothing is known."""


def _unwrapped(value: Any, index: int) -> Any:
    def known(each: Any) -> Any:
        if isinstance(each, KnownProxy):
            return each.known[index]
        if isinstance(each, Proxy):
            raise _UnknownError
        return each

    try:
        return map_aggregate(value, known)
    except _UnknownError:
        return None


class KnownProxy(Proxy):
    """A proxy with what it stands for, for each batch size.

    Operations in place make it stand for their result, as does assigning to a slice of it.
    """

    def __init__(self, node: Node, tracer: Any, known: tuple[Any, ...]) -> None:
        super().__init__(node, tracer)
        self.known = known
        self.part_of: tuple[KnownProxy, Any] | None = None

    def __getattr__(self, k: str) -> Any:
        found = tuple(getattr(value, k) for value in self.known)
        if callable(found[0]):
            return Attribute(self, k)
        return self.tracer.create_proxy("call_function", getattr, (self, k), {})

    def __len__(self) -> int:
        lengths = {len(value) for value in self.known}
        if len(lengths) > 1:
            raise TypeError("the number of samples is not known while tracing; needed a length other than the batch's")
        return lengths.pop()

    def __iter__(self) -> Iterator[Any]:
        return iter([self[index] for index in range(len(self))])  # type: ignore[index]  # fx adds __getitem__ later

    def __bool__(self) -> bool:
        if isinstance(self.known[0], Tensor):
            return super().__bool__()
        truths = {bool(value) for value in self.known}
        return truths.pop() if len(truths) == 1 else super().__bool__()

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, KnownProxy) and value.part_of == (self, index):
            return  # the end of `x[index] += y`: the part has told the whole already
        indices = index if isinstance(index, tuple) else (index,)
        self.replace(_assigned(self, indices, value))

    def replace(self, result: KnownProxy) -> None:
        """Stand for `result` from now on; so does the part of the tensor that this was taken from."""
        self.node, self.known = result.node, result.known
        if self.part_of is not None:
            whole, index = self.part_of
            whole[index] = result


def _assigned(x: Any, indices: Sequence[Any], value: Any, axis: int = 0) -> Any:
    """`x` with `value` at these slices: what lies before, within and behind, joined again."""
    if not indices:
        shape = tuple(x.shape)
        return value.expand(shape) if isinstance(value, (Proxy, Tensor)) else torch.full_like(x, value)
    (index, *rest) = indices
    if index is Ellipsis:
        return _assigned(x, rest, value, x.dim() - len(rest))
    if not isinstance(index, slice) or index.step not in (None, 1):
        raise TypeError(f"assigns to index {index!r}, needed slices with step 1; write torch.cat or torch.where")
    if index == slice(None):
        return _assigned(x, rest, value, axis + 1)
    start, stop, _ = index.indices(x.shape[axis])
    pieces = [
        x.narrow(axis, 0, start) if start else None,
        _assigned(x.narrow(axis, start, stop - start), rest, value, axis + 1),
        x.narrow(axis, stop, x.shape[axis] - stop) if stop < x.shape[axis] else None,
    ]
    present = [piece for piece in pieces if piece is not None]
    return torch.cat(present, axis) if len(present) > 1 else present[0]


def is_in_place(kind: str, target: Any) -> bool:
    """Whether an operation writes to its first argument."""
    if kind == "call_method":
        return bool(target.endswith("_") and not target.endswith("__"))
    return kind == "call_function" and target in _IN_PLACE


_IN_PLACE = frozenset((operator.iadd, operator.isub, operator.imul, operator.itruediv))


def constant(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The tensor itself, where one of constant size is made from the type of another."""
    source = args[0] if args else None
    if not isinstance(source, KnownProxy) or any(isinstance(each, Proxy) for each in _flat((args[1:], kwargs))):
        return None
    first = source.known[0]
    if target in _NEW:
        return getattr(torch.empty(0, dtype=first.dtype, device=first.device), target)(*args[1:], **kwargs)  # type: ignore[no-any-return]
    if target in _LIKE and _agree([value.shape for value in source.known]):
        return target(torch.empty(first.shape, dtype=first.dtype, device=first.device), *args[1:], **kwargs)  # type: ignore[no-any-return]
    return None


def _flat(value: Any) -> list[Any]:
    leaves: list[Any] = []
    map_aggregate(value, leaves.append)
    return leaves


def settled(known: tuple[Any, ...], part: Callable[[int], Any]) -> Any:
    """The plain value that all batch sizes give, or NotImplemented.

    Args:
        known: The value for each.
        part: Gives the entry of a tuple that depends on the batch.
    """
    if any(isinstance(leaf, Tensor) for leaf in _flat(known)):
        return NotImplemented
    if _agree(known):
        return known[0]
    if not isinstance(known[0], tuple) or not _agree([len(value) for value in known]):
        return NotImplemented
    entries = enumerate(zip(*known, strict=True))
    return tuple(each[0] if _agree(each) else part(index) for index, each in entries)


def _agree(values: Sequence[Any]) -> bool:
    return all(value == values[0] for value in values)
