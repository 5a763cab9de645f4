"""Clip behind max pools rather than before: the numbers are the same, and fewer."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["clip_behind_pools"]


def clip_behind_pools(model: ir.Model) -> ir.Model:
    """Exchange each max pool with the Clip before it."""
    for pool in [node for node in model.graph if node.op_type == "MaxPool"]:
        _pool_before_clip(model.graph, pool)
    return model


def _pool_before_clip(graph: ir.Graph, pool: ir.Node) -> None:
    """Exchange a Clip that only a max pool reads with that pool: both are monotone.

    before   x -> Clip -> MaxPool
    after    x -> MaxPool -> Clip
    """
    clipped, (pooled,) = pool.inputs[0], pool.outputs
    assert clipped is not None
    clip = clipped.producer()
    if clip is None or clip.op_type != "Clip" or len(clipped.uses()) > 1 or clipped.is_graph_output():
        return
    first = ir.node("MaxPool", [clip.inputs[0]], pool.attributes, name=pool.name)
    second = ir.node("Clip", [first.outputs[0], *clip.inputs[1:]], name=clip.name)
    first.outputs[0].name = f"{pooled.name}.unclipped"
    second.outputs[0].name = pooled.name
    for value in (first.outputs[0], second.outputs[0]):
        value.type, value.shape = pooled.type, pooled.shape
    ir.convenience.replace_nodes_and_values(graph, pool, [pool, clip], [first, second], [pooled], [second.outputs[0]])
