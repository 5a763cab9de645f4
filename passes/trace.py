"""From a float model to a graph of its modules and functions."""

from __future__ import annotations

import copy
import linecache
import os
import traceback
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Tracer

from ana_fx.errors import TraceError

__all__ = ["trace"]

_TORCH = os.path.dirname(torch.__file__)


def trace(model: nn.Module) -> GraphModule:
    """A graph over a copy of `model`, which is left as it was.

    Raises:
        TraceError: The control flow depends on data, or an operation cannot be recorded.
    """
    root = copy.deepcopy(model)
    tracer = _Tracer()
    try:
        graph = tracer.trace(root)
    except Exception as error:  # whatever user code raises when it meets a proxy
        raise TraceError(_explain(model, tracer, error)) from error
    gm = GraphModule(root, graph, class_name=type(model).__name__)
    gm.train(model.training)
    return gm


class _Tracer(Tracer):
    """Records source lines, and the module in which tracing failed."""

    def __init__(self) -> None:
        super().__init__()
        self.record_stack_traces = True
        self.failed_path: str | None = None

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.failed_path is None:
                self.failed_path = self.path_of_module(m)
            raise


def _explain(model: nn.Module, tracer: _Tracer, error: Exception) -> str:
    where = f"module {tracer.failed_path!r}" if tracer.failed_path else f"{type(model).__name__}.forward"
    return (
        f"cannot trace {where} at {_user_line(error.__traceback__)}\n"
        f"found: {error}\n"
        f"needed: a forward whose operations do not depend on the values of its tensors\n"
        f"Ways out: (1) replace the condition by torch.where or by a setting fixed in __init__; "
        f"(2) move the expression out of the model, before its input or after its output; "
        f"(3) trace the model yourself and give prepare() the GraphModule"
    )


def _user_line(trail: TracebackType | None) -> str:
    frames = [f for f in traceback.extract_tb(trail) if not f.filename.startswith(_TORCH) and f.filename != __file__]
    if not frames:
        return "an unknown line"
    frame = frames[-1]
    return f"{frame.filename}:{frame.lineno}: {linecache.getline(frame.filename, frame.lineno or 0).strip()}"
