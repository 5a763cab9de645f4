"""The tracer: from the code of a model to a graph, with the sizes that are known, or with all that is in the way."""

from __future__ import annotations

import fnmatch
import functools
import inspect
import linecache
import operator
import os
import traceback
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node, Proxy, Tracer, _symbolic_trace, proxy

from ana_fx import graph
from ana_fx.passes.canonical.canonical_dialect import is_dropout
from ana_fx.passes.frontend.decompositions import WRITTEN_OUT
from ana_fx.passes.frontend.output_containers import class_of, plain
from ana_fx.passes.frontend.returns_tensor import is_in_place, is_tensor_function, is_tensor_module
from ana_fx.passes.frontend.shape_proxies import (
    Knowledge,
    Known,
    KnownProxy,
    constant,
    has_tensor,
    settled,
)
from ana_fx.passes.frontend.tracing_alone import tracing_alone

__all__ = ["ModelTracer"]

_NOT_THE_USERS = tuple(os.path.join(os.path.dirname(file), "") for file in (torch.__file__, graph.__file__))
_THROUGH = (nn.Transformer, nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.TransformerDecoder,
            nn.TransformerDecoderLayer)  # fmt: skip
_ASSERTIONS = (torch._assert, proxy.assert_fn)
_NOTHING = object()
_CONDITION = "symbolically traced variables cannot be used as inputs to control flow"


class ModelTracer(Tracer):
    """Records a graph with the source line of each node, and lists every place where the model cannot be traced."""

    record_stack_traces = True

    def __init__(
        self,
        examples: tuple[Any, ...] | None,
        leaf_modules: tuple[type[nn.Module] | str, ...],
        wrapped_functions: tuple[Callable[..., Any], ...],
    ) -> None:
        super().__init__(autowrap_functions=wrapped_functions)
        self.knowledge = None if examples is None else Knowledge()
        self.examples = examples
        self.leaf_modules = leaf_modules
        self.wrapped_functions = wrapped_functions
        self.is_written_out = False
        self.problems: list[str] = []
        self.cause: Exception | None = None
        self.failed_path: str | None = None
        self.root_name = ""
        self.output_class: type | None = None
        self._conditions: set[tuple[str, str]] = set()
        self._tensors: dict[str, Tensor] = {}

    def record(self, root: nn.Module, concrete_args: dict[str, Any]) -> Graph | None:
        """Return the graph of `root`; None if it cannot be traced, and then `problems` says why."""
        self.root_name = type(root).__name__
        self._tensors = {
            **dict(root.named_parameters(remove_duplicate=False)),
            **dict(root.named_buffers(remove_duplicate=False)),
        }
        marked = _symbolic_trace._wrapped_fns_to_patch
        if self.knowledge is not None:  # then nothing needs to be hidden from the tracer
            marked = {key: names for key, names in marked.items() if names.get(key[1]) in self.wrapped_functions}
        try:
            with tracing_alone(marked) as trace:
                recorded = trace(self, root, concrete_args)
        except Exception as error:  # whatever user code raises when it meets a proxy
            if not self.problems:  # after a condition that was taken to hold, an error says nothing
                line = _user_line(traceback.extract_tb(error.__traceback__))
                self.problems.append(_problem(self.failed_path or "", self.root_name, line, str(error)))
            self.cause = self.cause or error
            return None
        return None if self.problems else recorded

    def unknown_sizes(self) -> list[str]:
        """Say why sizes are not known: what the first operation said that failed on the example inputs."""
        failure = None if self.knowledge is None else self.knowledge.failure
        return [f"found: on the example inputs an operation says: {failure}"] if failure else []

    def is_kept_whole(self, module: nn.Module, path: str) -> bool:
        """Whether the caller wants a module to stay one node."""
        return any(
            fnmatch.fnmatchcase(path, each) if isinstance(each, str) else isinstance(module, each)
            for each in self.leaf_modules
        )

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if self.is_kept_whole(m, module_qualified_name) or is_dropout(m):
            return True
        return super().is_leaf_module(m, module_qualified_name) and not isinstance(m, _THROUGH)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.knowledge is not None and self.knowledge.is_evaluating:
            return forward(*args, **kwargs)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.failed_path is None:
                self.failed_path = self.path_of_module(m)
            raise

    def to_bool(self, obj: Any) -> bool:
        """Note a condition on data and go on as if it held, so that the next one is found too."""
        where, line = self._current_path(), _user_line(traceback.extract_stack())
        refusal = proxy.TraceError(_CONDITION)
        if (where, line) in self._conditions:  # a loop, maybe an endless one
            raise refusal
        self.cause = self.cause or refusal
        self._conditions.add((where, line))
        self.problems.append(_problem(where, self.root_name, line, _CONDITION))
        return True

    def _current_path(self) -> str:
        return next(reversed(self.module_stack.values()))[0] if self.module_stack else ""

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if self.knowledge is not None and self.knowledge.is_evaluating:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:
        """Return a forward that gives plain containers, and its arguments: an input for each that has no value."""
        parameters = list(inspect.signature(root_fn).parameters.values())[1:]
        unknown = [name for name in concrete_args if name not in {each.name for each in parameters}]
        if unknown:
            raise TypeError(f"found concrete_args {unknown}, needed arguments of forward")
        examples = iter(self.examples or ())
        args: list[Any] = [self.root]
        keywords: dict[str, Any] = {}
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                continue
            if parameter.kind is parameter.VAR_POSITIONAL:
                names = enumerate(examples) if self.examples is not None else [(0, None)]
                args += [self._input(f"{parameter.name}_{index}", example) for index, example in names]
                continue
            has_default = parameter.default is not parameter.empty
            if parameter.name in concrete_args:
                value = concrete_args[parameter.name]
            elif self.examples is None:
                value = self._input(parameter.name, None, *([parameter.default] if has_default else []))
            else:
                example = next(examples, _NOTHING)
                is_default = example is _NOTHING and has_default
                value = parameter.default if is_default else self._input(parameter.name, example)
            if parameter.kind is parameter.KEYWORD_ONLY:
                keywords[parameter.name] = value
            else:
                args.append(value)

        @functools.wraps(root_fn)
        def forward(*arguments: Any) -> Any:
            output = root_fn(*arguments, **keywords)
            self.output_class = class_of(output)
            return plain(output)

        return forward, args

    def _input(self, name: str, example: Any, *default: Any) -> Any:
        known = self.knowledge.example(example) if self.knowledge and isinstance(example, Tensor) else None
        return self._recorded("placeholder", name, default, {}, known)

    def create_arg(self, a: Any) -> Any:
        return a.node if isinstance(a, Proxy) else super().create_arg(a)  # before fx asks whether it is a tensor

    def create_proxy(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
        proxy_factory_fn: Any = None,
    ) -> Any:
        if target in _ASSERTIONS:
            return None
        written_out = WRITTEN_OUT.get(target, None) if kind in ("call_function", "call_method") else None
        if written_out is not None and target not in self.wrapped_functions:
            result = written_out(*args, **kwargs)
            if result is not NotImplemented:
                self.is_written_out = True
                return result
        known = self._known(kind, target, args, kwargs)
        if known is None:
            return super().create_proxy(kind, target, args, kwargs, name, type_expr, proxy_factory_fn)
        is_call = kind in ("call_function", "call_method") and id(target) not in self._autowrap_function_ids
        if is_call and not known.is_declared_tensor:
            if known.values is None:
                return super().create_proxy(kind, target, args, kwargs, name, type_expr, proxy_factory_fn)
            tensor = constant(target, args, kwargs)
            plain_value = settled(known.values, self._part(kind, target, args, kwargs, known))
            if tensor is not None or plain_value is not NotImplemented:
                return plain_value if tensor is None else tensor
        result = self._recorded(kind, target, args, kwargs, known, name)
        first = args[0] if args else None
        if not isinstance(first, KnownProxy):
            return result
        if target is operator.getitem and _is_basic(args[1]) and known.is_tensor:
            result.part_of = first, args[1]
        if is_in_place(kind, target) and first.known.is_tensor and known.is_tensor:
            first.replace(result)
            return first
        return result

    def _known(self, kind: str, target: Any, args: Any, kwargs: Any) -> Known | None:
        """Return what an operation gives at each batch size; None if that is not known."""
        if self.knowledge is None:
            return None
        if kind == "get_attr":
            return self.knowledge.parameter(self._tensors[target])
        if kind == "call_module":
            module = self.root.get_submodule(target)
            return self.knowledge.operation(module, args, kwargs, is_tensor=is_tensor_module(module))
        if kind not in ("call_function", "call_method"):
            return None
        fn = _method(target) if kind == "call_method" else target
        is_tensor = is_tensor_function(target) and has_tensor((args, kwargs))
        return self.knowledge.operation(fn, args, kwargs, is_tensor=is_tensor)

    def _recorded(
        self, kind: str, target: Any, args: Any, kwargs: Any, known: Known | None, name: str | None = None
    ) -> Any:
        def proxy_of(node: Node) -> Proxy:
            return Proxy(node, self) if known is None else KnownProxy(node, self, known)

        return super().create_proxy(kind, target, args, kwargs, name, proxy_factory_fn=proxy_of)

    def _part(self, kind: str, target: Any, args: Any, kwargs: Any, known: Known) -> Callable[[int], Any]:
        """Return a function that records how to take an entry which depends on the batch out of a tuple of sizes."""
        if target in ("size", getattr) and (target == "size" or args[1] == "shape"):
            return lambda index: self.create_proxy("call_method", "size", (args[0], index), {})

        def part(index: int) -> Any:
            whole = self._recorded(kind, target, args, kwargs, known)
            return self.create_proxy("call_function", operator.getitem, (whole, index), {})

        return part


def _method(name: str) -> Callable[..., Any]:
    return lambda x, *rest, **named: getattr(x, name)(*rest, **named)


def _is_basic(index: Any) -> bool:
    """Whether indexing gives a view of slices."""
    return all(
        isinstance(each, slice) or each is Ellipsis for each in (index if isinstance(index, tuple) else (index,))
    )


def _problem(path: str, root_name: str, line: str, found: str) -> str:
    where = f"module {path!r}" if path else f"{root_name}.forward"
    return f"cannot trace {where} at {line}\nfound: {found}"


def _user_line(frames: Iterable[traceback.FrameSummary]) -> str:
    users = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_USERS)]
    if not users:
        return "an unknown line"
    frame = users[-1]
    return f"{frame.filename}:{frame.lineno}: {linecache.getline(frame.filename, frame.lineno or 0).strip()}"
