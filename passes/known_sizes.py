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

_BATCHES = (6, 35)  # times that of the example: parity, multiples and small quotients of the two differ
_NEW = ("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor")
_LIKE = (torch.zeros_like, torch.ones_like, torch.full_like, torch.empty_like)


class Knowledge:
    """What every operation gives for two batch sizes, as tensors without numbers: nothing is computed.

    What agrees for both is a constant; what differs depends on the batch and stays in the graph.
    """

    def __init__(self) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.is_evaluating = False  # then modules and parameters are to behave as outside tracing

    def example(self, x: Tensor) -> tuple[Any, Any]:
        """Both batches in place of an example with a leading batch axis."""
        with self.mode:
            shapes = [(times * x.shape[0], *x.shape[1:]) if x.dim() else () for times in _BATCHES]
            first, second = (torch.empty(shape, dtype=x.dtype, device=x.device) for shape in shapes)
        return first, second

    def parameter(self, x: Tensor) -> tuple[Any, Any]:
        """The same for a tensor of the model, which depends on no batch."""
        fake = self.mode.from_tensor(x)
        return fake, fake

    def evaluate(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """What `fn` gives for both, or None if an argument is unknown or `fn` needs numbers."""
        pairs = [_unwrapped((args, kwargs), index) for index in range(2)]
        if any(pair is None for pair in pairs):
            return None
        self.is_evaluating = True
        try:
            with self.mode, torch.no_grad():
                first, second = (fn(*pair[0], **pair[1]) for pair in pairs if pair is not None)
        except Exception:  # what does not fit is explained when the graph runs on the example
            return None
        finally:
            self.is_evaluating = False
        return first, second


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
    """A proxy with what it stands for, for two batch sizes.

    Operations in place make it stand for their result, as does assigning to a slice of it.
    """

    def __init__(self, node: Node, tracer: Any, known: tuple[Any, Any]) -> None:
        super().__init__(node, tracer)
        self.known = known
        self.part_of: tuple[KnownProxy, Any] | None = None

    def __getattr__(self, k: str) -> Any:
        found = tuple(getattr(value, k) for value in self.known)
        if callable(found[0]):
            return Attribute(self, k)
        return self.tracer.create_proxy("call_function", getattr, (self, k), {})

    def __len__(self) -> int:
        first, second = (len(value) for value in self.known)
        if first != second:
            raise TypeError("the number of samples is not known while tracing; needed a length other than the batch's")
        return first

    def __iter__(self) -> Iterator[Any]:
        return iter([self[index] for index in range(len(self))])  # type: ignore[index]  # fx adds __getitem__ later

    def __bool__(self) -> bool:
        first, second = self.known
        is_number = not isinstance(first, Tensor)
        return bool(first) if is_number and bool(first) == bool(second) else super().__bool__()

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
    first, second = source.known
    if target in _NEW:
        return getattr(torch.empty(0, dtype=first.dtype, device=first.device), target)(*args[1:], **kwargs)  # type: ignore[no-any-return]
    if target in _LIKE and first.shape == second.shape:
        return target(torch.empty(first.shape, dtype=first.dtype, device=first.device), *args[1:], **kwargs)  # type: ignore[no-any-return]
    return None


def _flat(value: Any) -> list[Any]:
    leaves: list[Any] = []
    map_aggregate(value, leaves.append)
    return leaves


def settled(known: tuple[Any, Any], part: Callable[[int], Any]) -> Any:
    """The plain value that both batch sizes give, or NotImplemented.

    Args:
        known: The value for both.
        part: Gives the entry of a tuple that depends on the batch.
    """
    first, second = known
    if any(isinstance(leaf, Tensor) for leaf in _flat(known)):
        return NotImplemented
    if first == second:
        return first
    if not isinstance(first, tuple) or len(first) != len(second):
        return NotImplemented
    pairs = enumerate(zip(first, second, strict=True))
    return tuple(one if one == other else part(index) for index, (one, other) in pairs)
