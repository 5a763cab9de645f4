"""Attention and contractions are written out, and compute what torch computes.

This covers passes/frontend/decompositions.py too.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ana_fx
from ana_fx.passes.frontend.trace_model import trace
from tests.graphs import Written, WrittenForTwo

CAUSAL = torch.ones(5, 5, dtype=torch.bool).triu(1)


@torch.no_grad()
def assert_close(model: nn.Module, *inputs: Tensor) -> torch.fx.GraphModule:
    """Alike but for the order of sums of a few dozen float32 terms, at the batch size of the trace and another."""
    gm = trace(model.eval(), inputs)
    for times in (1, 3):
        batch = [x.repeat(times, *[1] * (x.dim() - 1)) for x in inputs]
        torch.testing.assert_close(gm(*batch), model(*batch), rtol=0, atol=1e-5)
    return gm


def self_attention(mask: Tensor | None = None, **options: object) -> nn.Module:
    attention = nn.MultiheadAttention(8, 2, **options)
    return Written(lambda m, x: m.attention(x, x, x, need_weights=False, attn_mask=mask)[0], attention=attention)


def cross_attention(**options: object) -> nn.Module:
    attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)
    return WrittenForTwo(lambda m, x, y: m.attention(x, y, y)[0], attention=attention)


def test_self_attention_is_one_linear_layer_two_products_and_a_softmax():
    gm = assert_close(self_attention(batch_first=True), torch.rand(2, 5, 8))
    assert sum(node.target is torch.matmul for node in gm.graph.nodes) == 2
    assert [name for name, _ in gm.named_parameters()] == [
        f"attention.{linear}.{name}" for linear in ("in_proj", "out_proj") for name in ("weight", "bias")
    ]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mask", [None, CAUSAL, torch.zeros(5, 5).masked_fill(CAUSAL, float("-inf"))], ids=str)
def test_self_attention_computes_the_same(mask, bias):
    assert_close(self_attention(mask, bias=bias, batch_first=True), torch.rand(2, 5, 8))


def test_attention_that_rounds_otherwise_than_torch_is_prepared():
    """The sums of the module and of what it is written out to are taken in another order."""
    attention = nn.MultiheadAttention(5, 1, batch_first=True)
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    model = Written(lambda m, x: m.inner(x, x, x, need_weights=False)[0], inner=attention).eval()
    x = torch.rand(3, 6, 5)
    assert not torch.equal(trace(model, x)(x), model(x))
    assert trace(model, x).meta["is_written_out"]
    ana_fx.prepare(model, x)


def test_self_attention_with_the_positions_first_computes_the_same():
    model = Written(lambda m, x: m.inner(x.transpose(0, 1)).transpose(0, 1), inner=self_attention())
    assert_close(model, torch.rand(2, 5, 8))


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 6, "vdim": 6}], ids=str)
def test_cross_attention_computes_the_same(options):
    assert_close(cross_attention(**options), torch.rand(2, 5, 8), torch.rand(2, 7, options.get("kdim", 8)))


def test_weights_that_are_used_are_computed():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    assert_close(Written(lambda m, x: m.attention(x, x, x)[1], attention=attention), torch.rand(2, 5, 8))


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}], ids=str)
def test_keys_of_its_own_are_refused_with_the_path(options):
    with pytest.raises(ana_fx.TraceError, match=r"module 'attention': found add_bias_kv or add_zero_attn"):
        trace(self_attention(**options), torch.rand(5, 2, 8))


def test_a_mask_of_keys_is_refused_with_the_path():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    model = WrittenForTwo(lambda m, x, y: m.attention(x, x, x, key_padding_mask=y)[0], attention=attention)
    with pytest.raises(ana_fx.TraceError, match=r"(?s)module 'attention'.*key_padding_mask"):
        trace(model, (torch.rand(2, 5, 8), torch.rand(2, 5)))


def test_a_packed_module_for_both_kinds_of_attention_is_refused():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    model = WrittenForTwo(lambda m, x, y: m.attention(m.attention(x, x, x)[0], y, y)[0], attention=attention)
    with pytest.raises(ana_fx.TraceError, match="needed a module for each"):
        trace(model, (torch.rand(2, 5, 8), torch.rand(2, 5, 8)))


@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": "gelu"}, {"bias": False}], ids=str)
def test_transformer_encoders_compute_the_same(options):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)
    assert_close(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.rand(2, 5, 8))


def test_a_transformer_decoder_computes_the_same():
    layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
    assert_close(nn.TransformerDecoder(layer, 2), torch.rand(2, 5, 8), torch.rand(2, 3, 8))


@pytest.mark.parametrize(
    "options",
    [{}, {"is_causal": True}, {"scale": 0.3}, {"attn_mask": ~CAUSAL}, {"attn_mask": torch.rand(5, 5)}],
    ids=str,
)
def test_scaled_dot_products_compute_the_same(options):
    assert_close(Written(lambda m, x: F.scaled_dot_product_attention(x, x, x, **options)), torch.rand(2, 4, 5, 8))


def test_shared_keys_are_repeated_for_groups_of_queries():
    def grouped(m, x, y):
        return F.scaled_dot_product_attention(x, y, y, enable_gqa=True)

    assert_close(WrittenForTwo(grouped), torch.rand(2, 4, 5, 8), torch.rand(2, 2, 5, 8))


def test_attention_masked_by_minus_infinity_is_finite():
    def causal(m, x):
        return F.softmax((x @ x.transpose(-2, -1)).masked_fill(CAUSAL, float("-inf")), dim=-1)

    gm = assert_close(Written(causal), torch.rand(2, 5, 8))
    assert all(tensor.isfinite().all() for tensor in gm.buffers())


@pytest.mark.parametrize("is_self", [True, False])
def test_the_function_of_attention_computes_the_same(is_self):
    attention = nn.MultiheadAttention(8, 2)

    def function(m, x, y):
        x, y = x.transpose(0, 1), x.transpose(0, 1) if is_self else y.transpose(0, 1)
        y = x if is_self else y
        packed = (m.a.in_proj_weight, m.a.in_proj_bias, None, None, False, 0.0, m.a.out_proj.weight, m.a.out_proj.bias)
        return F.multi_head_attention_forward(x, y, y, 8, 2, *packed, training=False)[0].transpose(0, 1)

    parameters = WrittenForTwo(function, a=attention)
    gm = trace(parameters.eval(), (torch.rand(2, 5, 8), torch.rand(2, 5, 8)), leaf_modules=[nn.MultiheadAttention])
    x, y = torch.rand(3, 5, 8), torch.rand(3, 5, 8)
    torch.testing.assert_close(gm(x, y), parameters(x, y), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("equation", "first", "second"),
    [
        ("B G H I D, B G H J D -> B G H I J", (2, 3, 4, 5, 6), (2, 3, 4, 7, 6)),
        ("bythwc,hkc->bythwk", (2, 3, 4, 5, 6, 7), (5, 8, 7)),
        ("bchw,dc->bdhw", (2, 3, 4, 5), (6, 3)),
        ("bi,bi->b", (2, 3), (2, 3)),
        ("b...i,ij->b...j", (2, 3, 4), (4, 5)),
        ("bij,bkji->bk", (2, 3, 4), (2, 5, 4, 3)),
    ],
)
def test_a_contraction_is_a_matrix_product(equation, first, second):
    second_input = second[0] == 2
    operands = (torch.rand(first), torch.rand(second))
    if second_input:
        gm = assert_close(WrittenForTwo(lambda m, x, y: torch.einsum(equation, x, y)), *operands)
    else:
        weight = nn.Parameter(operands[1])
        gm = assert_close(Written(lambda m, x: torch.einsum(equation, x, m.weight), weight=weight), operands[0])
    targets = [node.target for node in gm.graph.nodes]
    assert torch.matmul in targets
    assert torch.einsum not in targets


def test_a_contraction_with_a_weight_for_each_row_keeps_samples_in_front():
    model = Written(
        lambda m, x: torch.einsum("bthwc,hkc->bthwk", x, m.weight), weight=nn.Parameter(torch.randn(5, 3, 6))
    )
    x = torch.randn(4, 2, 5, 3, 6)
    qat = ana_fx.prepare(model, x[:2], calibration=[x]).eval()
    program, more = ana_fx.convert(qat), torch.randn(7, 2, 5, 3, 6)
    assert torch.equal(program(more), qat(more))
    with torch.no_grad():
        wanted = model(x)
        assert float((qat(x) - wanted).abs().max()) < 0.1 * float(wanted.abs().max())


@pytest.mark.parametrize("equation", ["bii->b", "bij->bji", "bij,bjk->bk"])
def test_other_contractions_stay_calls(equation):
    count = equation.count(",") + 1
    gm = trace(Written(lambda m, x: torch.einsum(equation, *[x] * count)), torch.rand(2, 3, 3))
    assert torch.einsum in [node.target for node in gm.graph.nodes]
