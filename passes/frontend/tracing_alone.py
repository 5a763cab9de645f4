"""torch.fx's tracing for one thread: what it changes in torch for a while, no other thread sees.

While torch.fx traces, it replaces `nn.Module.__call__` and `nn.Module.__getattr__` in the whole process, so that the
modules of other threads would land in this trace. Here every replacement asks which thread calls, and gives the calls
of others to what stood there before. Threads that trace wait for each other.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FunctionType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.fx import Graph, Proxy, Tracer, _symbolic_trace

__all__ = ["tracing_alone"]

_LOCK = threading.RLock()  # the replaced attributes are torch's, so one thread at a time replaces them

_FLAG = "_is_fx_tracing_flag"
_RULES = "torch._dynamo.trace_rules"

_Wrapped = dict[tuple[int, str], dict[str, Any]]


@contextmanager
def tracing_alone(wrapped: _Wrapped) -> Iterator[Callable[..., Graph]]:
    """Give `Tracer.trace` as a function whose changes to torch are seen by this thread only.

    Args:
        wrapped: The functions that are recorded as one call, as `torch.fx.wrap` notes them.
    """
    methods = [(Tensor, "expand"), (Tensor, "__getitem__")]  # of a buffer, with the batch size among the arguments
    with _no_compilation(), _LOCK:
        here = _Here()
        flag = getattr(_symbolic_trace, _FLAG, None)
        if flag is not None:  # from torch 2.14 on it is each thread's own
            setattr(_symbolic_trace, _FLAG, here)  # read as a bool only
        marked = {"_wrapped_fns_to_patch": wrapped, "_wrapped_methods_to_patch": methods}
        mha, silence = torch.backends.mha, _Silence(here)
        logger = logging.getLogger("torch._subclasses.fake_tensor")  # we tell ourselves
        logger.addFilter(silence)
        factories = (torch.zeros, torch.ones)
        routed = [here.only(_taking_proxies(each), each) for each in factories]
        has_rules = _RULES in sys.modules
        try:
            with (
                patch.object(torch, "zeros", routed[0]),
                patch.object(torch, "ones", routed[1]),
                patch.object(mha, "get_fastpath_enabled", here.only(lambda: False, mha.get_fastpath_enabled)),
            ):
                yield _with_globals(
                    Tracer.trace,
                    _new_patcher=lambda: _Patcher(here),
                    _patch_wrapped_functions=_with_globals(_symbolic_trace._patch_wrapped_functions, **marked),
                )
        finally:
            logger.removeFilter(silence)
            if flag is not None:
                setattr(_symbolic_trace, _FLAG, flag)
            if not has_rules:
                _rename_rules(dict(zip(routed, factories, strict=True)))
            here.end()


def _rename_rules(originals: dict[Any, Any]) -> None:
    """Give torch's compiler its rules of the functions that were replaced while it was imported, as some models do.

    It reads them once, when it is imported, and would not know the functions that come back.
    """
    compiler = sys.modules.get(_RULES)
    rules = {} if compiler is None else compiler.get_torch_obj_rule_map()
    for replaced, original in originals.items():
        if replaced in rules:
            rules[original] = rules.pop(replaced)


class _Here:
    """Is true in the thread that made it, and false in all others; false everywhere after `end`."""

    def __init__(self) -> None:
        self._thread: int | None = threading.get_ident()

    def __bool__(self) -> bool:
        return self._thread == threading.get_ident()

    def end(self) -> None:
        """Be false from now on, in every thread."""
        self._thread = None

    def only(self, new: Callable[..., Any], old: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that calls `new` in this thread, and `old` in all others."""

        @functools.wraps(old)
        def routed(*args: Any, **kwargs: Any) -> Any:
            return new(*args, **kwargs) if self else old(*args, **kwargs)

        return routed


class _Patcher(_symbolic_trace._Patcher):
    """Patches methods for one thread only; torch's patches of functions pass calls without proxies on anyway."""

    def __init__(self, here: _Here) -> None:
        super().__init__()
        self._here = here

    def patch_method(self, cls: type, name: str, new_fn: Callable[..., Any], deduplicate: bool = True) -> None:
        """Replace a method in this thread; other threads go on calling what stood there."""
        super().patch_method(cls, name, self._here.only(new_fn, getattr(cls, name)), deduplicate)


class _Silence(logging.Filter):
    """Drops the log records of one thread."""

    def __init__(self, here: _Here) -> None:
        super().__init__()
        self._here = here

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep a record if another thread logged it."""
        return not self._here


def _no_compilation() -> AbstractContextManager[Any]:
    """Return the lock under which torch compiles: its compiler would read our replacements into the code of a model."""
    compiler = sys.modules.get("torch._dynamo.convert_frame")  # not loaded before something is compiled
    return getattr(compiler, "compile_lock", nullcontext())


def _with_globals(function: Callable[..., Any], **changed: Any) -> Callable[..., Any]:
    """Return a copy of a function that reads other values under some global names."""
    function = inspect.unwrap(function)  # torch's compiler wraps `Tracer.trace` once it is used
    assert isinstance(function, FunctionType)
    assert set(changed).issubset(function.__code__.co_names)
    names = {**function.__globals__, **changed}
    copied = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied


def _taking_proxies(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let `function(n, 3)` call `function((n, 3))` if `n` is a proxy: torch finds proxies in a tuple of sizes only."""

    def made(*sizes: Any, **options: Any) -> Any:
        is_proxy = any(isinstance(each, Proxy) for each in sizes)
        return function(sizes, **options) if is_proxy else function(*sizes, **options)

    return made
