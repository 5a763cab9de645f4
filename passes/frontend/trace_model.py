"""From a float model to a graph of its modules and functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn
from torch.fx import GraphModule

from ana_fx.errors import TraceError
from ana_fx.passes.frontend.attention import WrittenOutAttention
from ana_fx.passes.frontend.check_weights import check_weights
from ana_fx.passes.frontend.decompositions import write_out_attention
from ana_fx.passes.frontend.output_containers import OutputOfClass
from ana_fx.passes.frontend.rename_keywords import rename_keywords
from ana_fx.passes.frontend.trace_settings import check_concrete_args, checked_functions, checked_leaves
from ana_fx.passes.frontend.tracer import ModelTracer
from ana_fx.passes.frontend.unwrap import unwrapped_copy
from ana_fx.prepared.graph_form import GraphForm, set_form
from ana_fx.prepared.recognize import unwrap

__all__ = ["bound", "num_arguments", "trace"]

_NEEDED = (
    "needed: a forward whose operations do not depend on the values of its tensors\n"
    "Ways out: (1) replace the condition by torch.where or by a setting fixed in __init__; "
    "(2) move the expression out of the model, before its input or after its output; "
    "(3) trace the model yourself and give prepare() the GraphModule; "
    "(4) a condition on sizes: give prepare() example_inputs; (5) one on an argument: concrete_args"
)


def trace(
    model: nn.Module,
    example_inputs: Any = None,
    *,
    concrete_args: Mapping[str, Any] | None = None,
    leaf_modules: Iterable[type[nn.Module] | str] = (),
    wrapped_functions: Iterable[Callable[..., Any]] = (),
) -> GraphModule:
    """Record what a model computes in eval mode as a graph over a copy of it; the model is not touched.

    Args:
        model: Any module. Wrappers that train or compile a model are taken off; `meta["notes"]` tells.
        example_inputs: A tensor or a tuple of tensors with a leading batch axis. With them every size but the
            batch's is a number while the model's code runs, and functions marked by `torch.fx.wrap` are traced through.
        concrete_args: Values for arguments of `forward`, which then are no inputs of the graph.
        leaf_modules: Types, or patterns of paths, of modules that are kept whole.
        wrapped_functions: Functions that are kept as one call.

    Returns:
        The graph in the mode of the model. `meta["is_written_out"]` is True where attention or a contraction was
        replaced by plain operations, so that sums may be taken in another order.

    Raises:
        TraceError: The control flow depends on data, or an operation cannot be recorded; all such modules are listed.
        TypeError: A setting is of the wrong kind.
        UnsupportedError: Weights are computed from other parameters, as pruning and norms of weights do it.
        ValueError: A setting names what the model does not have.
    """
    notes: list[str] = []
    model = unwrap(model, notes)
    check_concrete_args(model, concrete_args or {})
    check_weights(model)
    root = unwrapped_copy(model, notes).eval()
    leaves, functions = checked_leaves(root, leaf_modules), checked_functions(wrapped_functions)
    examples = example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    tracer = ModelTracer(None if example_inputs is None else tuple(examples), leaves, functions)
    attention = write_out_attention(root, tracer.is_kept_whole)
    recorded = tracer.record(attention, dict(concrete_args or {}))
    if recorded is None:
        raise TraceError("\n".join([*tracer.problems, *tracer.unknown_sizes(), _NEEDED])) from tracer.cause
    rename_keywords(attention, recorded, notes)
    if tracer.output_class is not None:
        recorded.set_codegen(OutputOfClass(tracer.output_class))
    gm = GraphModule(attention, recorded, class_name=type(model).__name__)
    gm.graph.eliminate_dead_code()
    gm.recompile()
    gm.train(model.training)
    has_attention = any(isinstance(module, WrittenOutAttention) for module in attention.modules())
    gm.meta.update(notes=notes, is_written_out=tracer.is_written_out or has_attention)
    set_form(gm, GraphForm.TRACED)
    return gm


def bound(model: nn.Module, concrete_args: Mapping[str, Any]) -> Callable[..., Any]:
    """Return the model as a function of the arguments that are not among `concrete_args`."""
    if not concrete_args:
        return model
    parameters = inspect.signature(model.forward).parameters
    open_ones = [name for name in parameters if name not in concrete_args]
    return lambda *inputs: model(**dict(zip(open_ones, inputs, strict=False)), **concrete_args)


def num_arguments(model: nn.Module, concrete_args: Mapping[str, Any]) -> int | None:
    """Count the arguments of `forward` that can be inputs; None if it takes any number of them."""
    parameters = inspect.signature(model.forward).parameters
    if any(each.kind is each.VAR_POSITIONAL for each in parameters.values()):
        return None
    return sum(name not in concrete_args and each.kind is not each.VAR_KEYWORD for name, each in parameters.items())
