"""Writes attention out as linear layers, matrix products and a softmax."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MASKED", "WrittenOutAttention", "additive_mask", "attend"]

MASKED = -1e4  # added to a logit: exp(-1e4) is 0 in every float; minus infinity would have no scale


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, scale: float, dropout: nn.Module | float
) -> tuple[Tensor, Tensor]:
    """Compute the attention of each query to all keys; return the mixed values, and the weights.

    Args:
        query: (…, targets, features).
        key: (…, sources, features).
        value: (…, sources, values).
        mask: Added to the logits, (…, targets, sources).
        scale: Factor of the products.
        dropout: The dropout of the weights in training, a module or a probability.
    """
    logits = torch.matmul(query, key.transpose(-2, -1)) * scale
    if mask is not None:
        logits = logits + mask
    weights = F.softmax(logits, dim=-1)
    if isinstance(dropout, nn.Module):
        weights = dropout(weights)
    elif dropout:
        weights = F.dropout(weights, dropout)
    return torch.matmul(weights, value), weights


def additive_mask(mask: Any, *, true_is_masked: bool) -> Any:
    """Return a mask of bools or floats as finite numbers, to be added to logits."""
    if mask is None:
        return None
    if mask.dtype != torch.bool:
        return mask.clamp(min=MASKED)
    if isinstance(mask, torch.fx.Proxy):
        raise TypeError("the attention mask is computed from the inputs; needed a constant mask, or None")
    return torch.zeros(mask.shape, device=mask.device).masked_fill(mask if true_is_masked else ~mask, MASKED)


class WrittenOutAttention(nn.Module):
    """Takes the place of `nn.MultiheadAttention`, with its parameters.

    Self-attention is one linear layer with the packed parameters; other attention has three, whose parameters
    are those of the model, or copies of their parts where the model has them packed.

    Raises:
        ValueError: The attention adds keys of its own.
    """

    def __init__(self, attention: Any) -> None:  # torch types its parameters as if they were always there
        super().__init__()
        if attention.bias_k is not None or attention.add_zero_attn:
            raise ValueError("found add_bias_kv or add_zero_attn, needed attention to its input alone")
        self.num_heads, self.batch_first = attention.num_heads, attention.batch_first
        self.scale = float(attention.head_dim) ** -0.5
        packed, biases = attention.in_proj_weight, attention.in_proj_bias
        self.in_proj = None if packed is None else _linear(packed, biases)
        parts = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
        weights = parts if packed is None else _parts(packed)
        query_bias, key_bias, value_bias = (None, None, None) if biases is None else _parts(biases)
        self.query_proj = _linear(weights[0], query_bias)
        self.key_proj = _linear(weights[1], key_bias)
        self.value_proj = _linear(weights[2], value_bias)
        self.dropout = nn.Dropout(attention.dropout)
        self.out_proj = attention.out_proj
        self._was_packed: bool | None = None

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute what `nn.MultiheadAttention` does, whose `is_causal` is no more than a hint about `attn_mask`."""
        if key_padding_mask is not None:
            raise ValueError("found a key_padding_mask, needed attention to every key; use a constant attn_mask")
        heads = self._heads(query, key, value)
        mask = additive_mask(attn_mask, true_is_masked=True)
        mixed, weights = attend(*heads, mask=mask, scale=self.scale, dropout=self.dropout)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        output = output if self.batch_first else output.transpose(0, 1)
        if not need_weights:
            return output, None
        return output, weights.mean(1) if average_attn_weights else weights

    def _heads(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project to queries, keys and values, each (batch, head, position, feature)."""
        is_packed = self.in_proj is not None and query is key and key is value
        if self._was_packed is not None and self._was_packed != is_packed and self.in_proj is not None:
            raise ValueError("is used for self-attention and for cross-attention, needed a module for each")
        self._was_packed = is_packed
        if is_packed:
            assert self.in_proj is not None
            packed = self.in_proj(self._batch_first(query)).unflatten(-1, (3, self.num_heads, -1))
            heads = packed.permute(2, 0, 3, 1, 4)
            return heads[0], heads[1], heads[2]
        projections = ((self.query_proj, query), (self.key_proj, key), (self.value_proj, value))
        first, second, third = (
            project(self._batch_first(x)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project, x in projections
        )
        return first, second, third

    def _batch_first(self, x: Tensor) -> Tensor:
        return x if self.batch_first else x.transpose(0, 1)


def _parts(packed: nn.Parameter) -> list[nn.Parameter]:
    return [nn.Parameter(part.detach().clone(), packed.requires_grad) for part in packed.chunk(3)]


def _linear(weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Linear:
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight = weight
    if bias is not None:
        linear.bias = bias
    return linear
