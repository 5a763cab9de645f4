"""Productions: functions of each number, and arithmetic with numbers, parameters and buffers."""

from __future__ import annotations

from ana_fx.layers.table_map import Elementwise
from ana_fx.passes.canonical.canonical_dialect import FUNCTIONS
from tests.fuzz.builder import Builder, Production

__all__ = ["POINTWISE"]

_SETTINGS = {
    "CELU": ["", "alpha=0.5"],
    "ELU": ["", "alpha=0.3"],
    "GELU": ["", "approximate='tanh'"],
    "Hardshrink": ["", "0.2"],
    "LeakyReLU": ["0.1", "0.5", "-0.2"],
    "Softplus": ["", "beta=2"],
    "Softshrink": ["", "0.1"],
    "Threshold": ["0.1, -0.3", "0.0, 0.0", "-0.5, 1.0"],
}
_MODULES = [kind.__name__ for kind in FUNCTIONS if kind is not Elementwise]
_SPELLINGS = [
    "F.silu({x})",
    "F.gelu({x})",
    "F.leaky_relu({x}, 0.2)",
    "F.elu({x})",
    "F.celu({x})",
    "F.selu({x})",
    "F.hardswish({x})",
    "F.hardsigmoid({x})",
    "F.softplus({x})",
    "F.softshrink({x}, 0.1)",
    "F.hardshrink({x}, 0.1)",
    "F.threshold({x}, 0.1, 0.0)",
    "F.softsign({x})",
    "F.tanhshrink({x})",
    "F.mish({x})",
    "F.logsigmoid({x})",
    "torch.sigmoid({x})",
    "{x}.sigmoid()",
    "torch.tanh({x})",
    "{x}.tanh()",
    "{x} * torch.sigmoid({x})",
    "torch.abs({x})",
    "{x}.abs()",
    "torch.square({x})",
    "{x} ** 2",
    "{x}.pow(3)",
    "torch.exp(-{x}.abs())",
    "{x}.clamp(-2, 2).exp()",
    "torch.sqrt({x}.abs())",
    "F.relu({x}).sqrt()",
    "torch.rsqrt({x}.abs() + 0.5)",
    "torch.log1p({x}.abs())",
    "torch.erf({x})",
    "torch.sin({x})",
    "{x}.cos()",
    "-{x}",
    "torch.neg({x})",
    "1 / (1 + {x}.abs())",
]
_CLIPS = [
    "F.relu({x})",
    "torch.relu({x})",
    "{x}.relu()",
    "F.relu6({x})",
    "F.hardtanh({x}, -0.5, 0.75)",
    "{x}.clamp(0, 1)",
    "torch.clamp({x}, -1, 2)",
    "torch.clamp({x}, min=0)",
    "{x}.clip(max=0.5)",
    "{x}.clamp(min=0.25)",
    "{x}.clamp(0.2, 1)",
    "{x}.clamp(-3, -1)",
    "F.hardtanh({x}, 0.1, 0.9)",
]
_LINES = [
    "{x} * 0.5 + 1",
    "{x} * -3.0",
    "1 - {x}",
    "{x} / 3",
    "{x} - 0.25",
    "2 * {x}",
    "{x}.mul(0.1)",
    "torch.add({x}, 1.5)",
    "{x}.sub(1, alpha=2)",
    "{x} * {x}.size(-1) ** -0.5",
    "{x} / math.sqrt({x}.shape[1])",
    "torch.sub({x}, 0.5)",
    "{x} * 0.0",
    "{x} + 0",
]
_WITH_PARAMETER = [
    "{x} + {p}",
    "{x} * {p}",
    "{x} - {p}",
    "{p} - {x}",
    "{p} * {x}",
    "torch.add({x}, {p})",
    "{x} * {p}.abs()",
    "{x} + {p} * 2",
    "{x} * torch.sigmoid({p})",
]


def clip(b: Builder) -> None:
    """A clamp, whose range may miss zero."""
    x, _ = b.pick()
    if b.chance(0.4):
        b.call(
            "act",
            f"nn.{b.of('ReLU()', 'ReLU()', 'ReLU6()', 'Hardtanh()', 'Hardtanh(0.0, 0.5)', 'Hardtanh(-2, -1)')}",
            x,
        )
    else:
        b.add(b.of(*_CLIPS).format(x=x))


def function(b: Builder) -> None:
    """Any function that becomes a table, in any spelling."""
    x, shape = b.pick()
    if b.chance(0.5):
        b.add(b.of(*_SPELLINGS).format(x=x))
        return
    name = b.of(*_MODULES)
    settings = b.of(*_SETTINGS.get(name, [""]))
    if name == "PReLU":
        settings = b.of("", str(shape[1]) if len(shape) > 1 else "")
    b.call("act", f"nn.{name}({settings})", x)


def line(b: Builder) -> None:
    """With Python numbers."""
    x, _ = b.pick()
    b.add(b.of(*_LINES).format(x=x))


def softmax(b: Builder) -> None:
    """Over any axis but the batch."""
    x, shape = b.pick(2, 3, 4, 5)
    axis = b.of(-1, -1, 1, b.rng.randint(1, len(shape) - 1))
    b.add(b.of(f"F.softmax({x}, {axis})", f"{x}.softmax(dim={axis})", f"torch.softmax({x}, {axis})"))


def parameter(b: Builder) -> None:
    """An operand of the model's own, of no axis up to all."""
    x, shape = b.pick()
    per_channel = [shape[1], *[1] * (len(shape) - 2)] if shape[1:] else []
    sizes = b.of((), (1,), shape[1:], [1, *shape[1:]], shape[-1:], per_channel)
    text = f"({', '.join(map(str, sizes))}{',' * (len(sizes) == 1)})"
    if b.chance(0.7):
        operand, line = b.member("scale", f"nn.Parameter(torch.ones{text if sizes else '(())'})")
    else:
        operand, line = b.buffer("table", f"torch.full({text}, {b.of(0.7, 0.0, -2.0, 1.0)})")
    form = b.of(*_WITH_PARAMETER)
    b.add(form.format(x=x, p=operand), line)


def constant(b: Builder) -> None:
    """Integers, masks and other numbers that the code makes."""
    x, shape = b.pick(2, 3, 4)
    size = shape[-1]
    arange, mask = f"torch.arange({size})", f"torch.arange({size}) % 2 == 0"
    form = b.rng.random()
    if form < 0.35:
        b.add(b.of("{x} + {c}", "{x} * {c}", "{x} - {c} / 2", "{x} * ({c} > 0)").format(x=x, c=arange))
    elif form < 0.7:
        name, line = b.buffer("mask", b.of(mask, arange, f"torch.linspace(-1, 1, {size})", f"torch.eye({size})[0]"))
        b.add(b.of(f"{x} * {name}", f"{x} + {name}", f"{x} * {name}.float()", f"{x} - {name}.to({x}.dtype)"), line)
    elif form < 0.85:
        b.add(
            f"{x} + "
            + b.of(
                f"torch.ones({size})",
                f"torch.ones_like({x})",
                f"{x}.new_ones({size})",
                "torch.tensor(0.5)",
                f"torch.zeros({size}, dtype=torch.int64)",
            )
        )
    else:
        name, line = b.buffer("mask", mask)
        b.add(
            b.of(
                f"{x}.masked_fill({name}, 0.0)",
                f"torch.where({name}, {x}, torch.zeros_like({x}))",
                f"torch.where({name}, {x}, 0.0)",
            ),
            line,
        )


def in_place(b: Builder) -> None:
    """What overwrites its operand."""
    x, _ = b.pick()
    b.add(
        b.of(
            "F.relu_({x})", "{x}.relu_()", "{x}.mul_(0.5)", "{x}.clamp_(0, 1)", "{x}.add_(1)", "{x}.sigmoid_()"
        ).format(x=x)
    )


def leftover(b: Builder) -> None:
    """Casts, copies and other things that a model may do and nobody computes."""
    x, _ = b.pick()
    b.add(
        b.of(
            "{x}.contiguous()",
            "{x}.clone()",
            "{x}.float()",
            "{x}.to({x}.dtype)",
            "{x}.detach()",
            "nn.Identity()({x})",
            "{x}.type_as({x})",
        ).format(x=x)
    )


POINTWISE: dict[Production, float] = {
    clip: 6,
    function: 5,
    line: 2,
    softmax: 1,
    parameter: 2,
    constant: 1,
    in_place: 0.3,
    leftover: 0.4,
}
