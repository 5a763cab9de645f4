"""Functions that are recorded as the plain operations they stand for: attention and contractions."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import Proxy

from ana_fx.errors import TraceError, listing
from ana_fx.passes.frontend.attention import MASKED, WrittenOutAttention, additive_mask, attend

__all__ = ["WRITTEN_OUT", "write_out_attention"]


def write_out_attention(root: nn.Module, is_kept: Callable[[nn.Module, str], bool]) -> nn.Module:
    """Replace every `nn.MultiheadAttention` in `root` that is not kept whole; return the root, or its substitute.

    Raises:
        TraceError: An attention adds keys of its own.
    """
    written: dict[nn.Module, nn.Module] = {}
    problems = []
    for path, module in list(root.named_modules(remove_duplicate=False)):
        if type(module) is not nn.MultiheadAttention or is_kept(module, path):
            continue
        try:
            written.setdefault(module, WrittenOutAttention(module).train(module.training))
        except ValueError as reason:
            problems.append(f"module {path!r}: {reason}")
            continue
        if not path:
            return written[module]
        root.set_submodule(path, written[module])
    if problems:
        raise TraceError(listing("cannot trace attention:", problems, "build it without the option"))
    return root


def _scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if enable_gqa:
        key, value = (x.repeat_interleave(query.size(-3) // x.size(-3), -3) for x in (key, value))
    if is_causal:
        attn_mask = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool).tril()
    mask = additive_mask(attn_mask, true_is_masked=False)
    scale = query.size(-1) ** -0.5 if scale is None else scale
    return attend(query, key, value, mask=mask, scale=scale, dropout=dropout_p)[0]


def _multi_head_attention(
    query: Any,
    key: Any,
    value: Any,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Any,
    out_proj_bias: Any,
    training: bool = True,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Any:
    """Compute attention on (position, batch, feature) tensors, with the arguments of torch's own function."""
    if add_zero_attn or any(each is not None for each in (bias_k, bias_v, key_padding_mask, static_k, static_v)):
        raise TypeError("found keys, values or masks of keys besides the input, needed attention to the input alone")
    if use_separate_proj_weight or not (query is key and key is value):
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
        weights = weights if use_separate_proj_weight else in_proj_weight.chunk(3)
        biases = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
        sources = zip((query, key, value), weights, biases, strict=False)
        heads = [
            F.linear(x, weight, bias).unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3) for x, weight, bias in sources
        ]
    else:
        packed = F.linear(query, in_proj_weight, in_proj_bias).unflatten(-1, (3, num_heads, -1)).permute(2, 1, 3, 0, 4)
        heads = [packed[0], packed[1], packed[2]]
    mask = additive_mask(attn_mask, true_is_masked=True)
    scale = (embed_dim_to_check // num_heads) ** -0.5
    mixed, attention = attend(*heads, mask=mask, scale=scale, dropout=dropout_p)
    output = F.linear(mixed.permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias)
    if not need_weights:
        return output, None
    return output, attention.mean(1) if average_attn_weights else attention


def _einsum(equation: Any, *operands: Any) -> Any:
    """Write the contraction of two operands as one matrix product; NotImplemented for any other."""
    operands = tuple(operands[0]) if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    if not isinstance(equation, str) or len(operands) != 2:
        return NotImplemented
    terms = _terms(equation, [operand.dim() for operand in operands])
    if terms is None:
        return NotImplemented
    first, second, result = terms
    is_plain = all(len(set(term)) == len(term) for term in terms)
    summed = [letter for letter in first if letter in second and letter not in result]
    if not is_plain or not summed or {*first, *second} - {*summed} != set(result):
        return NotImplemented
    lead = result[:1]
    if any(letter in first and letter in second for letter in result):  # stacks of matrices: samples stay in front
        count = operands[0].size(first.index(lead)) if lead in first else operands[1].size(second.index(lead))
        operands = tuple(
            x if lead in term else x.unsqueeze(0).expand(count, *[-1] * len(term))
            for x, term in zip(operands, (first, second), strict=True)
        )
        first, second = (term if lead in term else lead + term for term in (first, second))
    batch = [letter for letter in result if letter in first and letter in second]
    left = [letter for letter in first if letter not in second]
    right = [letter for letter in second if letter not in first]
    sizes = {letter: operands[0].size(axis) for axis, letter in enumerate(first)}
    sizes |= {letter: operands[1].size(second.index(letter)) for letter in right}
    matrices = (
        _matrix(operands[0], first, (batch, left, summed)),
        _matrix(operands[1], second, (batch, summed, right)),
    )
    product = torch.matmul(*matrices)
    product = _split(_split(product, -1, right, sizes), len(batch), left, sizes)
    return _permuted(product, [*batch, *left, *right], result)


def _terms(equation: str, ranks: list[Any]) -> tuple[str, str, str] | None:
    """Return the letters of both operands and of the result, for an ellipsis too; None if a rank is unknown."""
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow or len(terms) != 2:
        return None
    unused = [letter for letter in string.ascii_letters if letter not in equation]
    hidden = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True) if "..." in term]
    if not all(isinstance(count, int) and 0 <= count <= len(unused) for count in hidden) or len(set(hidden)) > 1:
        return None
    ellipsis = "".join(unused[: hidden[0]]) if hidden else ""
    first, second, output = (term.replace("...", ellipsis) for term in (*terms, result))
    return first, second, output


def _matrix(x: Any, letters: str, groups: tuple[list[str], list[str], list[str]]) -> Any:
    """Return `x` with its axes in the order of the groups, and each of the last two groups joined to one axis."""
    batch, rows, columns = groups
    x = _permuted(x, list(letters), [*batch, *rows, *columns])
    return _joined(_joined(x, len(batch) + len(rows), len(columns)), len(batch), len(rows))


def _joined(x: Any, axis: int, count: int) -> Any:
    """Join `count` axes from `axis` on to one."""
    if count == 1:
        return x
    return x.unsqueeze(axis) if count == 0 else x.flatten(axis, axis + count - 1)


def _split(x: Any, axis: int, letters: list[str], sizes: dict[str, Any]) -> Any:
    """Split one axis into an axis for each letter."""
    if len(letters) == 1:
        return x
    return x.unflatten(axis, tuple(sizes[letter] for letter in letters)) if letters else x.squeeze(axis)


def _permuted(x: Any, letters: list[str], wanted: Any) -> Any:
    order = [letters.index(letter) for letter in wanted]
    return x if order == sorted(order) else x.permute(*order)


def _masked_fill(x: Any, mask: Any, value: Any) -> Any:
    """Write the filling of logits under a constant mask as a sum; NotImplemented for any other."""
    if isinstance(mask, Proxy) or not isinstance(x, Proxy) or not isinstance(value, (int, float)) or value > MASKED:
        return NotImplemented
    added: Any = torch.zeros(mask.shape, device=mask.device).masked_fill(mask, MASKED)
    return x + added


WRITTEN_OUT: Mapping[Any, Callable[..., Any]] = MappingProxyType(
    {
        F.scaled_dot_product_attention: _scaled_dot_product_attention,
        F.multi_head_attention_forward: _multi_head_attention,
        torch.einsum: _einsum,
        torch.masked_fill: _masked_fill,
        "masked_fill": _masked_fill,
    }
)
