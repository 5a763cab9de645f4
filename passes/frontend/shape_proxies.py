"""Proxies that know their sizes, so that model code can compute with these sizes as it does with those of tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Node, Proxy
from torch.fx.node import map_aggregate
from torch.fx.proxy import Attribute

__all__ = [
    "Knowledge",
    "Known",
    "KnownProxy",
    "constant",
    "has_tensor",
    "settled",
]

_BATCHES = (1, 6, 35)  # times that of the example: no comparison, quotient or remainder is alike for all by chance
_NEW = ("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor")
_LIKE = (torch.zeros_like, torch.ones_like, torch.full_like, torch.empty_like)


class Knowledge:
    """Knows what each operation gives for a few batch sizes, as tensors that have a shape and no numbers.

    A size that is the same for all is a constant; one that differs depends on the batch, and stays in the graph.
    An operation is evaluated when model code asks what it gives, after all operations that were recorded before it.
    """

    def __init__(self) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.failure: str | None = None  # what the first operation said that could not be evaluated
        self.is_evaluating = False  # then modules and parameters are to behave as outside tracing
        self._waiting: list[Known] = []

    def example(self, x: Tensor) -> Known:
        """Stand for an example with a leading batch axis, at each of the batch sizes."""

        def batches() -> tuple[Tensor, ...]:
            shapes = [(times * x.shape[0], *x.shape[1:]) if x.dim() else () for times in _BATCHES]
            return tuple(torch.empty(shape, dtype=x.dtype, device=x.device) for shape in shapes)

        return self._later(batches, is_tensor=True)

    def parameter(self, x: Tensor) -> Known:
        """Stand for a tensor of the model, which is the same at each batch size."""
        return self._later(lambda: (self.mode.from_tensor(x),) * len(_BATCHES), is_tensor=True)

    def operation(self, fn: Callable[..., Any], args: Any, kwargs: Any, *, is_tensor: bool) -> Known | None:
        """Stand for what `fn` gives at each batch size; None if nothing is known of an argument.

        Args:
            fn: The operation.
            args: Its positional arguments, proxies among them.
            kwargs: Its keyword arguments, proxies among them.
            is_tensor: Whether torch declares that it gives a tensor.
        """
        try:
            given = map_aggregate((args, kwargs), _known_argument)
        except _UnknownError:
            return None

        def results() -> tuple[Any, ...]:
            calls = [map_aggregate(given, functools.partial(_value_for, index)) for index in range(len(_BATCHES))]
            return tuple(fn(*positional, **keywords) for positional, keywords in calls)

        return self._later(results, is_tensor=is_tensor)

    def evaluate(self) -> None:
        """Evaluate all operations that wait, in the order of the model's code, since some write to their arguments."""
        waiting, self._waiting = self._waiting, []
        self.is_evaluating = True
        try:
            with torch.no_grad():
                for known in waiting:
                    known.found = self._result(known.evaluated)
        finally:
            self.is_evaluating = False

    def _result(self, evaluated: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...] | None:
        try:
            with self.mode:
                return evaluated()
        except _UnknownError:
            return None
        except Exception as error:  # what does not fit is explained when the graph runs on the example
            self.failure = self.failure or (str(error).splitlines() or [type(error).__name__])[0]
            return None

    def _later(self, evaluated: Callable[[], tuple[Any, ...]], *, is_tensor: bool) -> Known:
        self._waiting.append(Known(self, evaluated, is_tensor=is_tensor))
        return self._waiting[-1]


class Known:
    """What one operation gives at each batch size. It is evaluated when model code asks for it.

    Args:
        knowledge: Evaluates it, with all operations that were recorded before it.
        evaluated: Computes what it gives at each batch size.
        is_tensor: Whether torch declares that it is a tensor.
    """

    def __init__(self, knowledge: Knowledge, evaluated: Callable[[], tuple[Any, ...]], *, is_tensor: bool) -> None:
        self.evaluated = evaluated
        self.found: tuple[Any, ...] | None = None
        self._knowledge = knowledge
        self.is_declared_tensor = is_tensor

    @property
    def values(self) -> tuple[Any, ...] | None:
        """What the operation gives at each batch size; None if it cannot be evaluated."""
        self._knowledge.evaluate()
        return self.found

    @property
    def is_tensor(self) -> bool:
        """Whether the operation gives a tensor, as torch declares it or as its values show."""
        return self.is_declared_tensor or (self.values is not None and isinstance(self.values[0], Tensor))


class _UnknownError(Exception):
    """Nothing is known of an argument, so nothing can be told of the operation."""


def _known_argument(each: Any) -> Any:
    if isinstance(each, KnownProxy):
        return each.known
    if isinstance(each, Proxy):
        raise _UnknownError
    return each


def _value_for(index: int, each: Any) -> Any:
    if not isinstance(each, Known):
        return each
    if each.found is None:
        raise _UnknownError
    return each.found[index]


class KnownProxy(Proxy):
    """A proxy that knows the tensor it stands for at each batch size.

    After an operation in place it stands for the result, and so it does after an assignment to a slice of it.
    """

    def __init__(self, node: Node, tracer: Any, known: Known) -> None:
        super().__init__(node, tracer)
        self.known = known
        self.part_of: tuple[KnownProxy, Any] | None = None

    def __getattr__(self, k: str) -> Any:
        if self.known.is_tensor and callable(getattr(Tensor, k, None)):
            return Attribute(self, k)
        attributes = [getattr(value, k) for value in self.known.values or ()]
        if not attributes or callable(attributes[0]):
            return Attribute(self, k)
        return self.tracer.create_proxy("call_function", getattr, (self, k), {})

    def __len__(self) -> int:
        values = self.known.values
        if values is None:
            raise TypeError("the length is not known while tracing; needed example inputs that fit the model")
        lengths = {len(value) for value in values}
        if len(lengths) > 1:
            raise TypeError("the number of samples is not known while tracing; needed a length other than the batch's")
        return lengths.pop()

    def __iter__(self) -> Iterator[Any]:
        if self.known.values is None:
            return iter(super().__iter__())
        return iter([self[index] for index in range(len(self))])  # type: ignore[index]  # fx adds __getitem__ later

    def __bool__(self) -> bool:
        if self.known.is_tensor or self.known.values is None:
            return super().__bool__()
        truths = {bool(value) for value in self.known.values}
        return truths.pop() if len(truths) == 1 else super().__bool__()

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, KnownProxy) and value.part_of == (self, index):
            return  # the end of `x[index] += y`: the part has told the whole already
        indices = index if isinstance(index, tuple) else (index,)
        self.replace(_assigned(self, indices, value))

    def replace(self, result: KnownProxy) -> None:
        """Stand for `result` from now on. If this is a part of another tensor, that one gets the part too."""
        self.node, self.known = result.node, result.known
        if self.part_of is not None:
            whole, index = self.part_of
            whole[index] = result


def _assigned(x: Any, indices: Sequence[Any], value: Any, axis: int = 0) -> Any:
    """Return `x` with `value` at these slices: a concatenation of the parts before, within and behind each slice."""
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


def constant(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """Make the tensor of a call such as `x.new_zeros(3)`, which takes only its type from `x`; None for other calls."""
    source = args[0] if args else None
    if not isinstance(source, KnownProxy) or any(isinstance(each, Proxy) for each in _flat((args[1:], kwargs))):
        return None
    values = source.known.values if target in _NEW or target in _LIKE else None
    if values is None:
        return None
    first = values[0]
    if target in _NEW:
        return getattr(torch.empty(0, dtype=first.dtype, device=first.device), target)(*args[1:], **kwargs)  # type: ignore[no-any-return]
    if target in _LIKE and _agree([value.shape for value in values]):
        return target(torch.empty(first.shape, dtype=first.dtype, device=first.device), *args[1:], **kwargs)  # type: ignore[no-any-return]
    return None


def _flat(value: Any) -> list[Any]:
    leaves: list[Any] = []
    map_aggregate(value, leaves.append)
    return leaves


def has_tensor(value: Any) -> bool:
    """Whether the arguments hold a tensor of the graph."""
    return any(isinstance(each, KnownProxy) and each.known.is_tensor for each in _flat(value))


def settled(known: tuple[Any, ...], part: Callable[[int], Any]) -> Any:
    """Return the plain value that all batch sizes agree on; NotImplemented if there is none.

    Args:
        known: The value at each batch size.
        part: Returns a proxy for an entry of a tuple that depends on the batch, by its index.
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
