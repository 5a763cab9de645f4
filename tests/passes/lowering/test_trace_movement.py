"""Movements that are derived from operations do on any batch what the operation does.

This covers passes/lowering/classify_movement.py and passes/lowering/lower_movement.py, which put what is derived here
into words, and into a program.
"""

import functools
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ana_fx.passes.lowering.trace_movement import derive
from ana_fx.program.data_movement import Movement
from ana_fx.program.layout import BATCH, Layout

IMAGE = Layout((BATCH, 6, 4, 8), 0)


def program_tensor(layout: Layout, batch_size: int) -> Tensor:
    """Random integers as they lie in the program."""
    if layout.batch_axis is None:
        return torch.randint(-128, 256, layout.shape).double().expand(batch_size, *layout.shape)
    return torch.randint(-128, 256, (batch_size * layout.rows, *layout.row)).double()


def checked(fn: Callable[..., Tensor], *inputs: Layout, batch_axis: int = 0) -> list[Movement]:
    """What is derived, after a comparison with `fn` on batches of other sizes."""
    shape = fn(*(layout.user(program_tensor(layout, BATCH)) for layout in inputs)).shape
    modules = derive(fn, inputs, Layout(tuple(shape), batch_axis))
    for batch_size in (1, 2, 5):
        tensors = [program_tensor(layout, batch_size) for layout in inputs]
        wanted = fn(*(layout.user(x) for layout, x in zip(inputs, tensors, strict=True)))
        assert torch.equal(apply(modules, tensors), wanted.movedim(batch_axis, 0))
    return modules


def apply(modules: Sequence[Movement], tensors: list[Tensor]) -> Tensor:
    if not modules:
        (x,) = tensors
        return x
    return functools.reduce(lambda x, module: module(x), modules[1:], modules[0](*tensors))


def names(modules: Sequence[Movement]) -> str:
    return " ".join(type(module).__name__ for module in modules)


FORMS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "contiguous": (lambda x: x.contiguous(), ""),
    "identity": (nn.Identity(), ""),
    "full slice": (lambda x: x[:, :, ...], ""),
    "flatten": (lambda x: torch.flatten(x, 1), "Reshape"),
    "nn.Flatten": (nn.Flatten(), "Reshape"),
    "nn.Unflatten": (nn.Unflatten(1, (2, 3)), "Reshape"),
    "view": (lambda x: x.view(x.size(0), -1), "Reshape"),
    "unsqueeze": (lambda x: x.unsqueeze(-1), "Reshape"),
    "None": (lambda x: x[:, None, ..., None], "Reshape"),
    "windows into the batch": (lambda x: x.view(-1, 3, 4, 8), "Reshape"),
    "transpose": (lambda x: x.transpose(1, -1), "Permute"),
    "permute": (lambda x: torch.permute(x, (0, 2, 3, 1)), "Permute"),
    "mT": (lambda x: x.mT, "Permute"),
    "movedim": (lambda x: x.movedim(1, -1), "Permute"),
    "einsum": (lambda x: torch.einsum("nchw->nwhc", x), "Permute"),
    "batch to the middle": (lambda x: x.transpose(0, 1).transpose(0, 1), ""),
    "strided slice": (lambda x: x[:, ::2, 1:, :-3], "Slice"),
    "narrow": (lambda x: x.narrow(1, 2, 3), "Slice"),
    "chunk": (lambda x: x.chunk(3, dim=1)[1], "Slice"),
    "split": (lambda x: x.split([1, 5], 1)[1], "Slice"),
    "tensor_split": (lambda x: torch.tensor_split(x, 4, 1)[3], "Slice"),
    "even index": (lambda x: x[:, [1, 3, 5]], "Slice"),
    "max pool of one": (lambda x: F.max_pool2d(x, 1, 2), "Slice"),
    "crop": (lambda x: F.pad(x, (-1, -1, 0, -1)), "Slice"),
    "select": (lambda x: x.select(1, 2), "Slice Reshape"),
    "index": (lambda x: x[:, 2, :, -1], "Slice Reshape"),
    "unbind": (lambda x: x.unbind(2)[1], "Slice Reshape"),
    "first element": (lambda x: x[:, 0, 0, 0], "Slice Reshape"),
    "flip": (lambda x: x.flip(1), "Take"),
    "two flips": (lambda x: torch.flip(x, (2, 3)), "Take Take"),
    "roll": (lambda x: torch.roll(x, (1, -2), (2, 3)), "Take Take"),
    "index_select": (lambda x: x.index_select(1, torch.tensor([4, 0, 0])), "Take"),
    "list": (lambda x: x[:, [3, 1, 1]], "Take"),
    "table": (lambda x: x[:, torch.tensor([[0, 5], [2, 0]])], "Take Reshape"),
    "repeat": (lambda x: x.repeat(1, 1, 2, 1), "Take"),
    "tile": (lambda x: torch.tile(x, (1, 2, 1, 1)), "Take"),
    "cat with itself": (lambda x: torch.cat((x, x), 3), "Take"),
    "repeat_interleave": (lambda x: x.repeat_interleave(3, dim=1), "Take"),
    "expand": (lambda x: x.unsqueeze(2).expand(-1, -1, 3, -1, -1), "Take Reshape"),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), "Take Take"),
    "nearest-exact": (lambda x: F.interpolate(x, size=(4, 12), mode="nearest-exact"), "Take"),
    "nn.Upsample": (nn.Upsample(scale_factor=(1, 2)), "Take"),
    "nearest, smaller": (lambda x: F.interpolate(x, scale_factor=0.5), "Slice"),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 3), "Take"),
    "reflect": (lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"), "Take Take"),
    "replicate": (nn.ReplicationPad2d(1), "Take Take"),
    "circular": (nn.CircularPad2d((1, 0, 0, 0)), "Take"),
    "windows that overlap": (lambda x: x.unfold(3, 3, 2), "Take Reshape"),
    "windows that do not": (lambda x: x.unfold(3, 2, 2), "Reshape"),
    "zero pad": (lambda x: F.pad(x, (1, 2, 0, 1)), "Pad"),
    "nn.ZeroPad2d": (nn.ZeroPad2d(1), "Pad"),
    "channels of zeros": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 1)), "Pad"),
    "pad and crop": (lambda x: F.pad(x, (1, -2)), "Slice Pad"),
    "shortcut of type A": (lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3)), "Slice Pad"),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x.reshape(x.size(0), 12, 4, 4), 2), "Reshape Permute Reshape"),
    "pixel_unshuffle": (nn.PixelUnshuffle(2), "Reshape Permute Reshape"),
    "tokens": (lambda x: x.flatten(2).transpose(1, 2), "Reshape Permute"),
    "window partition": (
        lambda x: x.view(-1, 6, 2, 2, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, 6, 2, 4),
        "Reshape Permute Reshape",
    ),
    "unfold": (nn.Unfold(2, stride=2), "Reshape Permute Reshape"),
    "unfold, overlapping": (nn.Unfold(3), "Take Take Reshape Permute Reshape"),
    "unfold, padded": (nn.Unfold(3, padding=1), "Rearrange"),
    "tril": (torch.tril, "Rearrange"),
    "all zeros": (lambda x: x * 0, "Rearrange"),
}


@pytest.mark.parametrize(("fn", "form"), FORMS.values(), ids=FORMS)
def test_operations_become_the_modules_that_one_would_write(fn, form):
    assert names(checked(fn, IMAGE)) == form


ANY_SHAPE = {  # of rank four; `n` is small and positive
    "transpose": lambda x, n: x.transpose(1, 1 + n % 3),
    "permute": lambda x, n: x.permute(0, 3, 1, 2),
    "flatten": lambda x, n: x.flatten(1 + n % 3),
    "squeeze": lambda x, n: x.squeeze(1 + n % 3),
    "transposed tokens": lambda x, n: x.flatten(2).transpose(1, 2),
    "transposed channels": lambda x, n: x.transpose(1, 3).flatten(1, 2),
    "select": lambda x, n: x.select(1 + n % 3, -1),
    "slice": lambda x, n: x[:, ::n, :, -n:],
    "transposed slice": lambda x, n: x[:, -1:, ::n].transpose(1, 2),
    "flip": lambda x, n: x.flip(1 + n % 2, 3),
    "roll": lambda x, n: x.roll((n, 1), (1, 3)),
    "roll of all": lambda x, n: x.flatten(1).roll(n, 1).view_as(x),
    "repeat": lambda x, n: x.repeat(1, n, 1, 2),
    "repeat in front": lambda x, n: x[:, None].expand(-1, n, -1, -1, -1).flatten(1, 2),
    "expand": lambda x, n: x[:, :, None, :, None].expand(-1, -1, n, -1, 2, -1),
    "expand at the end": lambda x, n: x[..., None].expand(-1, -1, -1, -1, n),
    "stack of parts": lambda x, n: torch.stack([x[:, :, 0], x[:, :, -1]], n % 3 + 1),
    "repeat_interleave": lambda x, n: x.repeat_interleave(n, 1 + n % 3),
    "nearest": lambda x, n: F.interpolate(x, scale_factor=(n, 1)),
    "pad": lambda x, n: F.pad(x, (n, 0, 1, n)),
    "pad all sides": lambda x, n: F.pad(x, (0, 0, n, 0, 0, n)).flatten(2),
    "replicate": lambda x, n: F.pad(x, (n, 0, 1, n), mode="replicate"),
    "unfold": lambda x, n: F.unfold(x, 1, stride=n),
    "unfold with padding": lambda x, n: F.unfold(x, 2, padding=1, stride=n),
    "diagonal": lambda x, n: x.diagonal(0, 2, 3),
    "triangle": lambda x, n: x.triu(n - 2),
    "depth to space": lambda x, n: F.pixel_shuffle(x.repeat(1, n * n, 1, 1), n),
    "shuffle": lambda x, n: F.channel_shuffle(x.repeat(1, n, 1, 1), n),
    "rows": lambda x, n: x.flatten(0, 1),
    "rows of the last axis": lambda x, n: x.movedim(3, 1).flatten(0, 1),
}
SHAPES = st.tuples(*[st.integers(1, 4)] * 3)


@settings(max_examples=15)
@given(shape=SHAPES, n=st.integers(1, 3))
@pytest.mark.parametrize("fn", ANY_SHAPE.values(), ids=ANY_SHAPE)
def test_any_shape_is_moved_as_the_operation_does(fn, shape, n):
    checked(lambda x: fn(x, n), Layout((BATCH, *shape), 0))


@settings(max_examples=40)
@given(shape=SHAPES, parts=st.integers(2, 3), name=st.sampled_from([*ANY_SHAPE]))
def test_rows_of_a_sample_are_moved_as_samples_are(shape, parts, name):
    fn = functools.partial(ANY_SHAPE[name], n=2)
    samples = checked(fn, Layout((BATCH, *shape), 0))
    assert str(checked(fn, Layout((BATCH * parts, *shape), 0))) == str(samples)


@settings(max_examples=60)
@given(shape=SHAPES, first=st.sampled_from([*ANY_SHAPE]), second=st.sampled_from([*ANY_SHAPE]))
def test_chains_are_moved_as_one_operation(shape, first, second):
    def chain(x):
        y = ANY_SHAPE[first](x, 2)
        return ANY_SHAPE[second](y.reshape(*y.shape[:2], -1, 1), 3)

    checked(chain, Layout((BATCH, *shape), 0))


@settings(max_examples=40)
@given(data=st.data(), shape=SHAPES)
def test_the_batch_may_lie_on_any_axis(data, shape):
    before, after = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))
    rows = data.draw(st.integers(1, 2))
    user = (*shape[:before], BATCH * rows, *shape[before:])
    others = data.draw(st.permutations([axis for axis in range(4) if axis != before]))
    order = [*others[:after], before, *others[after:]]
    modules = checked(lambda x: x.permute(order), Layout(user, before), batch_axis=after)
    if others == sorted(others):
        assert modules == []


def test_queries_keys_and_values_are_taken_apart():
    tokens = Layout((BATCH, 5, 3, 2, 4), 0)
    assert str(checked(lambda x: x.permute(2, 0, 3, 1, 4), tokens, batch_axis=1)) == "[Permute((0, 2, 3, 1, 4))]"
    taken = checked(lambda x: x[1], Layout((3, BATCH, 2, 5, 4), 1))
    assert str(taken) == "[Slice(1:2:1, 0:2:1, 0:5:1, 0:4:1), Reshape((2, 5, 4))]"


def test_heads_join_the_batch_and_leave_it():
    sequence, heads = Layout((5, BATCH, 12), 1), Layout((BATCH * 3, 5, 4), 0)
    joined = checked(lambda x: x.reshape(5, -1, 4).transpose(0, 1), sequence)
    assert str(joined) == "[Reshape((5, 3, 4)), Permute((0, 2, 1, 3)), Reshape((5, 4))]"
    left = checked(lambda x: x.transpose(0, 1).reshape(5, -1, 12), heads, batch_axis=1)
    assert str(left) == "[Reshape((3, 5, 4)), Permute((0, 2, 1, 3)), Reshape((5, 12))]"


def test_windows_leave_the_batch():
    windows = Layout((BATCH * 4, 2, 4, 3), 0)
    assert str(checked(lambda x: x.view(-1, 2, 2, 2, 4, 3), windows)) == "[Reshape((2, 2, 2, 4, 3))]"
    assert names(checked(lambda x: x.view(-1, 4, 2, 4, 3)[:, ::2].flatten(0, 1), windows)) == "Reshape Slice Reshape"


def test_rows_of_a_sample_may_be_exchanged():
    def exchange(x):
        return x.unflatten(0, (-1, 3)).flip(1).flatten(0, 1)

    assert names(checked(exchange, Layout((BATCH * 3, 4), 0))) == "Reshape Take Reshape"


def test_rows_of_a_sample_may_be_moved_differently():
    def flip_first(x):
        rows = x.unflatten(0, (-1, 3))
        return torch.cat([rows[:, :1].flip(2), rows[:, 1:]], 1).flatten(0, 1)

    assert names(checked(flip_first, Layout((BATCH * 3, 4), 0))) == "Rearrange"


def test_heads_join_a_batch_of_windows_by_themselves():
    windows = Layout((BATCH * 4, 5, 3, 2), 0)
    modules = checked(lambda x: x.transpose(1, 2).flatten(0, 1), windows)
    assert str(modules) == "[Permute((0, 2, 1, 3)), Reshape((5, 2))]"


SAME = Layout((BATCH, 3, 4), 0)
JOINS: dict[str, tuple[Callable[..., Tensor], Sequence[Layout], str]] = {
    "cat": (lambda *xs: torch.cat(xs, 1), [SAME, Layout((BATCH, 2, 4), 0)], "Concat"),
    "cat of three": (lambda *xs: torch.cat(xs, -1), [SAME, SAME, SAME], "Concat"),
    "hstack": (lambda *xs: torch.hstack(xs), [SAME, SAME], "Concat"),
    "stack in front": (lambda *xs: torch.stack(xs, 1), [SAME, SAME], "Concat Reshape"),
    "stack": (lambda *xs: torch.stack(xs, 2), [SAME, SAME], "Concat Reshape"),
    "stack at the end": (lambda *xs: torch.stack(xs, -1), [SAME, SAME], "Concat Reshape Permute"),
    "cat of rows": (lambda *xs: torch.cat(xs, 1), [Layout((BATCH * 3, 2), 0)] * 2, "Concat"),
    "cat of moved": (lambda *xs: torch.cat(xs, 0), [Layout((3, BATCH, 4), 1)] * 2, "Concat"),
    "cat of rows and their order": (
        lambda *xs: torch.cat([x.unflatten(0, (-1, 3)) for x in xs], 1).flatten(0, 1),
        [Layout((BATCH * 3, 2), 0)] * 2,
        "Rearrange",
    ),
    "cat with a constant": (
        lambda x, c: torch.cat([c.expand(len(x), -1, -1), x], 1),
        [SAME, Layout((1, 4), None)],
        "Concat Take",
    ),
    "cat of a constant of that rank": (
        lambda c, x: torch.cat([c.expand(len(x), -1, -1), x], 1),
        [Layout((1, 4), None), SAME],
        "Concat",
    ),
    "where": (
        lambda x, y: torch.where(torch.eye(3, 4) == 0, x, y),
        [SAME, SAME],
        "Rearrange",
    ),
}


@pytest.mark.parametrize(("fn", "inputs", "form"), JOINS.values(), ids=JOINS)
def test_several_tensors_are_joined(fn, inputs, form):
    modules = checked(fn, *inputs, batch_axis=1 if fn is JOINS["cat of moved"][0] else 0)
    assert names(modules) == form


def test_constants_get_a_batch():
    table = Layout((4, 3), None)

    def bias(table):
        return table[torch.tensor([[0, 1], [3, 0]])].permute(2, 0, 1).expand(BATCH, -1, -1, -1)

    modules = derive(bias, [table], Layout((BATCH, 3, 2, 2), 0))
    assert names(modules) == "Take Reshape Permute"
    x = torch.arange(12).reshape(4, 3)
    assert torch.equal(apply(modules, [x.expand(BATCH, 4, 3)]), bias(x))
    token = derive(lambda c: c.expand(BATCH, -1, -1), [Layout((1, 1, 4), None)], Layout((BATCH, 1, 4), 0))
    assert str(token) == "[Reshape((1, 4))]"


def test_operations_may_change_their_input_in_place():
    def roll_in_place(x):
        return x.copy_(x.roll(1, 1))

    assert names(checked(roll_in_place, IMAGE)) == "Take"


NUMBERS_NEEDED = "needed an operation that only moves"
REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "scaled": (lambda x: x * 2, NUMBERS_NEEDED),
    "halved": (lambda x: x / 2, NUMBERS_NEEDED),
    "shifted": (lambda x: F.pad(x[..., 1:] - 1, (0, 1)), NUMBERS_NEEDED),
    "negated": (lambda x: -x, NUMBERS_NEEDED),
    "rectified": (torch.relu, NUMBERS_NEEDED),
    "sorted": (lambda x: x.sort(-1).values, NUMBERS_NEEDED),
    "pooled": (lambda x: F.max_pool2d(x, 2), NUMBERS_NEEDED),
    "averaged": (lambda x: F.avg_pool2d(x, (1, 3)), NUMBERS_NEEDED),
    "interpolated": (lambda x: F.interpolate(x, size=(2, 4), mode="bilinear"), NUMBERS_NEEDED),
    "filled with ones": (lambda x: F.pad(x, (1, 1), value=1.0), NUMBERS_NEEDED),
    "filled with infinities": (lambda x: F.pad(x, (1, 1), value=float("-inf")), NUMBERS_NEEDED),
    "samples exchanged": (lambda x: x.flip(0), "found an output that mixes samples, needed each sample"),
    "samples interleaved": (lambda x: x.transpose(0, 1).reshape_as(x), "mixes samples"),
    "one sample flipped": (lambda x: torch.cat([x[:1], x[1:].flip(1)]), "needed all samples to be treated alike"),
    "empty": (lambda x: x[:, :0], "and not empty"),
}


@pytest.mark.parametrize(("fn", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_movement_is_refused(fn, message):
    shape = fn(torch.zeros(IMAGE.shape)).shape
    with pytest.raises(ValueError, match=message):
        derive(fn, [IMAGE], Layout(tuple(shape), 0))


def test_sums_are_refused():
    with pytest.raises(ValueError, match=NUMBERS_NEEDED):
        derive(torch.add, [SAME, SAME], SAME)


def test_rows_that_mix_samples_are_refused():
    with pytest.raises(ValueError, match="mixes samples"):
        derive(lambda x: x.flip(0), [Layout((6, 2), 0)], Layout((6, 2), 0))


def test_wrong_layouts_are_refused():
    with pytest.raises(ValueError, match=r"found a batch axis of length 3, needed a multiple of 2"):
        Layout((3, 4), 0)
    with pytest.raises(ValueError, match=r"found batch axis 2, needed one of the axes of \(2, 4\)"):
        Layout((2, 4), 2)
    with pytest.raises(ValueError, match=r"found a result of shape \(2, 6, 4, 8\), needed \(2, 4\)"):
        derive(nn.Identity(), [IMAGE], Layout((2, 4), 0))
    with pytest.raises(ValueError, match="found an output without a batch axis"):
        derive(nn.Identity(), [Layout((2,), None)], Layout((2,), None))
