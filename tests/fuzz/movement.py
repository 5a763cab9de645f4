"""Productions: what only moves numbers, and what joins tensors."""

from __future__ import annotations

import math

from tests.fuzz.builder import Builder, Production, UnfitError

__all__ = ["MOVEMENT"]

_ANY = [
    "{x}.flatten(1)",
    "torch.flatten({x}, 1)",
    "{x}.view({x}.size(0), -1)",
    "{x}.reshape({x}.shape[0], -1)",
    "{x}.unsqueeze(1)",
    "{x}.unsqueeze(-1)",
    "{x}.flip(-1)",
    "torch.flip({x}, (1,))",
    "{x}.roll(1, -1)",
    "torch.roll({x}, -1, 1)",
    "{x}[:, :1]",
    "{x}[:, ::2]",
    "{x}[..., 1:]",
    "{x}[:, -1:]",
    "{x}[..., [0, -1, 0]]",
    "{x}.repeat_interleave(2, 1)",
    "torch.cat([{x}, {x}], -1)",
    "{x}.narrow(1, 0, 1)",
    "{x}.select(-1, 0)",
    "{x}[:, 0]",
    "{x}.squeeze(1)",
    "{x}.squeeze(-1)",
    "torch.squeeze({x}, 1)",
    "{x}[:, None]",
    "{x}.unbind(-1)[0]",
    "{x}.index_select(1, torch.tensor([0, 0]))",
    "{x}.view_as({x})",
    "{x}.expand_as({x})",
]
_THREE = ["{x}.transpose(1, 2)", "{x}.permute(0, 2, 1)", "{x}.mT", "torch.swapaxes({x}, 1, 2)", "{x}.movedim(1, 2)"]
_FOUR = [
    "{x}.permute(0, 2, 3, 1)",
    "torch.permute({x}, (0, 3, 1, 2))",
    "{x}.flatten(2)",
    "{x}.flatten(2).transpose(1, 2)",
    "{x}.transpose(2, 3)",
    "{x}.mT",
    "torch.movedim({x}, 1, -1)",
    "{x}.flatten(1, 2)",
    "{x}.flip((2, 3))",
    "{x}.roll((1, -1), (2, 3))",
    "{x}[:, :, 0::2, 1::2]",
    "{x}.repeat(1, 1, 1, 2)",
    "{x}.tile((1, 2, 1, 1))",
    "{x}.expand(-1, -1, -1, -1)",
    "{x}.flatten(0, 1).unflatten(0, ({x}.size(0), {x}.size(1)))",
    "{x}.permute(1, 0, 2, 3).permute(1, 0, 2, 3)",
    "{x}.unfold(2, 1, 1).squeeze(-1)",
    "{x}[:, :, {x}.size(2) // 2:]",
]


def move(b: Builder) -> None:
    """One of the spellings of movement."""
    x, shape = b.pick()
    codes = _ANY + {3: _THREE, 4: _FOUR * 2}.get(len(shape), [])
    b.add(b.of(*codes).format(x=x))


def reshape(b: Builder) -> None:
    """To any shape of as many numbers."""
    x, shape = b.pick()
    number, sizes = math.prod(shape[1:]), []
    for _ in range(b.rng.randint(0, 3)):
        sizes.append(b.divisor(number // math.prod(sizes)))
    sizes.append(number // math.prod(sizes))
    text = ", ".join(map(str, sizes))
    if b.chance(0.2):
        b.call("flatten", "nn.Flatten()", x)
    elif b.chance(0.2):
        b.add(f"{x}.flatten(1).unflatten(1, ({text},))")
    else:
        b.add(
            b.of(
                f"{x}.reshape({x}.size(0), {text})",
                f"{x}.contiguous().view(-1, {text})",
                f"torch.reshape({x}, (-1, {text}))",
            )
        )


def parts(b: Builder) -> None:
    """Several tensors from one."""
    x, shape = b.pick(where=lambda shape: max(shape[1:], default=0) > 1)
    axis = b.rng.choice([axis for axis, size in enumerate(shape) if axis and size > 1])
    size = shape[axis]
    codes = [f"{x}.chunk(2, {axis})", f"torch.chunk({x}, 2, dim={axis})", f"{x}.split([1, {size - 1}], {axis})"]
    codes += [f"torch.tensor_split({x}, 2, {axis})", f"{x}.tensor_split((1,), dim={axis})"]
    codes += [f"torch.split({x}, {(size + 1) // 2}, {axis})"]
    if size == 2:
        codes += [f"{x}.unbind({axis})", f"torch.unbind({x}, {axis})"]
    b.add(b.of(*codes), parts=2)


def expand(b: Builder) -> None:
    """A copy of what has size one."""
    x, shape = b.pick(where=lambda shape: 1 in shape[1:])
    sizes = [-1, *(b.of(2, 3) if size == 1 else -1 for size in shape[1:])]
    text = ", ".join(map(str, sizes))
    b.add(
        b.of(
            f"{x}.expand({text})",
            f"torch.broadcast_to({x}, ({x}.size(0), {text[4:]}))" if -1 not in sizes[1:] else f"{x}.expand(({text}))",
        )
    )


def join(b: Builder) -> None:
    """Concatenation and stacking of two or three tensors."""
    x, shape = b.pick()
    axis = b.rng.randint(1, len(shape) - 1) if len(shape) > 1 else 0
    if not axis:
        raise UnfitError
    others = [
        b.pick(len(shape), where=lambda s: s[:axis] + s[axis + 1 :] == shape[:axis] + shape[axis + 1 :])[0]
        for _ in range(b.of(1, 1, 2))
    ]
    names = ", ".join([x, *others])
    b.add(
        b.of(
            f"torch.cat([{names}], {axis})",
            f"torch.cat(({names}), dim={axis - len(shape)})",
            f"torch.concat(({names}), {axis})",
        )
    )


def stack(b: Builder) -> None:
    """A new axis."""
    x, shape = b.pick(1, 2, 3, 4)
    y, _ = b.pick(where=lambda s: s == shape)
    axis = b.rng.randint(1, len(shape))
    b.add(f"torch.stack([{x}, {y}], {axis})" + b.of("", f".flatten({axis - 1}, {axis})" if axis > 1 else ""))


MOVEMENT: dict[Production, float] = {move: 5, reshape: 2, parts: 1.5, expand: 1, join: 2.5, stack: 1}
