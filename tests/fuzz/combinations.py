"""Productions: two tensors together, reductions, attention, and blocks of several operations."""

from __future__ import annotations

from tests.fuzz.builder import Builder, Production, UnfitError

__all__ = ["COMBINATIONS"]


def arithmetic(b: Builder) -> None:
    """Sums, differences and products of tensors that broadcast."""
    x, shape = b.pick()
    y, _ = b.pick(len(shape), where=lambda s: all(i == j or 1 in (i, j) for i, j in zip(s, shape, strict=True)))
    forms = [
        "{x} + {y}",
        "{x} + {y}",
        "{x} - {y}",
        "{x} * {y}",
        "torch.add({x}, {y}, alpha=0.5)",
        "torch.mul({x}, {y})",
    ]
    forms += ["{x}.add({y})", "operator.add({x}, {y})", "{x} - 2 * {y}", "torch.sub({x}, {y})", "{x} + {y} + {x}"]
    b.add(b.of(*forms).format(x=x, y=y))


def accumulate(b: Builder) -> None:
    """A sum in place, of a fresh tensor."""
    x, shape = b.pick()
    y, _ = b.pick(where=lambda s: s == shape)
    name = f"t{b.num_statements + 1}"
    b.add(name, before=(f"{name} = {x} * 1.0", f"{name} {b.of('+=', '-=', '*=')} {y}"))


def product(b: Builder) -> None:
    """Matrix products of two tensors."""
    x, shape = b.pick(3, 4)
    y, other = b.pick(len(shape), where=lambda s: s[:-2] == shape[:-2] and (s[-1] == shape[-1] or s[-2] == shape[-1]))
    if other[-2] == shape[-1]:
        forms = ["{x} @ {y}", "torch.matmul({x}, {y})"] + [
            "torch.bmm({x}, {y})",
            "torch.einsum('bij,bjk->bik', {x}, {y})",
        ] * (len(shape) == 3)
    else:
        forms = ["{x} @ {y}.transpose(-1, -2)", "torch.matmul({x}, {y}.mT)"]
        forms += ["torch.einsum('bij,bkj->bik', {x}, {y})"] * (len(shape) == 3)
    b.add(b.of(*forms).format(x=x, y=y))


def reduction(b: Builder) -> None:
    """Means, sums and maxima over axes."""
    x, shape = b.pick(2, 3, 4, 5)
    axes = tuple(sorted(b.rng.sample(range(1, len(shape)), b.rng.randint(1, len(shape) - 1))))
    kept = b.chance(0.6)
    form = b.of(
        "{x}.mean({a}, keepdim={k})",
        "torch.mean({x}, dim={a}, keepdim={k})",
        "{x}.sum({a}, keepdim={k})",
        "torch.sum({x}, {a}, {k})",
    )
    if b.chance(0.08):
        form = b.of(
            "{x}.amax({a}, keepdim={k})",
            "{x}.std({a}, keepdim={k})",
            "{x}.cumsum(1)",
            "torch.maximum({x}, -{x})",
            "{x}.max(1)[0]",
        )
    b.add(form.format(x=x, a=axes, k=kept))


def gate(b: Builder) -> None:
    """Squeeze and excitation."""
    x, shape = b.pick(4)
    channels, hidden = shape[1], b.of(1, 2, 4)
    down, first = b.member("down", f"nn.Conv2d({channels}, {hidden}, 1)")
    up, second = b.member("up", f"nn.Conv2d({hidden}, {channels}, 1)")
    last = b.of("torch.sigmoid", "F.hardsigmoid", "torch.tanh")
    b.add(f"{x} * {last}({up}(F.relu({down}({x}.mean((2, 3), keepdim=True)))))", first, second)


def residual(b: Builder) -> None:
    """A block with a skip, whose norms and activation may be shared."""
    x, shape = b.pick(3, 4)
    axes, channels = len(shape) - 2, shape[1]
    a, first = b.member("first", f"nn.Conv{axes}d({channels}, {channels}, 3, padding=1, bias=False)")
    norm, second = b.member("bn", f"nn.BatchNorm{axes}d({channels})")
    act, third = b.member(
        "act", f"nn.{b.of('ReLU(inplace=True)', 'ReLU()', 'SiLU()', 'GELU()', 'Hardswish()', 'ReLU6()')}"
    )
    inner = b.of(f"{norm}({a}({x}))", f"{a}({act}({norm}({x})))", f"{norm}({a}({act}({norm}({a}({x})))))")
    b.add(b.of(f"{act}({inner} + {x})", f"{x} + {inner}", f"{act}({x} - {inner})"), first, second, third)


def twice(b: Builder) -> None:
    """One module called on two tensors, or twice."""
    x, shape = b.pick(2, 3, 4)
    y, _ = b.pick(where=lambda s: s == shape)
    size = shape[-1]
    kind = b.of(f"nn.Linear({size}, {size})", f"nn.Sequential(nn.Linear({size}, {size}), nn.ReLU())")
    if len(shape) > 2:
        kind = b.of(kind, f"nn.Conv{len(shape) - 2}d({shape[1]}, {shape[1]}, 1)")
    module, line = b.member("shared", kind)
    b.add(
        b.of(
            f"{module}({module}({x}))",
            f"{module}({x}) + {module}({y})",
            f"torch.cat([{module}({x}), {module}({y})], 1)",
        ),
        line,
    )


def tied(b: Builder) -> None:
    """Two layers of one weight."""
    x, shape = b.pick(2, 3)
    size = shape[-1]
    a, first = b.member("tied_a", f"nn.Linear({size}, {size})")
    c, second = b.member("tied_b", f"nn.Linear({size}, {size}, bias={b.chance(0.5)})")
    code = b.of(f"{c}(F.relu({a}({x})))", f"{a}({x}) + {c}({x})", f"F.linear({a}({x}), {a}.weight.t())")
    b.add(code, first, second, f"{c}.weight = {a}.weight")


def containers(b: Builder) -> None:
    """Module lists, dictionaries and sequences."""
    x, shape = b.pick(3, 4)
    axes, channels = len(shape) - 2, shape[1]
    conv = f"nn.Conv{axes}d({channels}, {channels}, 1)"
    name = f"t{b.num_statements + 1}"
    kind = b.rng.random()
    if kind < 0.4:
        module, line = b.member("blocks", f"nn.ModuleList([{conv}, nn.BatchNorm{axes}d({channels}), nn.ReLU()])")
        b.add(name, line, before=(f"{name} = {x}", f"for block in {module}: {name} = block({name})"))
    elif kind < 0.7:
        module, line = b.member("named", f"nn.ModuleDict({{'a': {conv}, 'b': nn.Sigmoid(), 'c 1': nn.ReLU()}})")
        b.add(f"{module}['b']({module}['a']({x})) + {module}['c 1']({x})", line)
    else:
        module, line = b.member(
            "net",
            f"nn.Sequential({conv}, nn.BatchNorm{axes}d({channels}), nn.{b.of('ReLU', 'SiLU', 'Tanh')}(), {conv})",
        )
        b.add(f"{module}({x})", line)


def by_size(b: Builder) -> None:
    """Control flow on sizes."""
    x, _ = b.pick(3, 4)
    name = f"t{b.num_statements + 1}"
    condition = b.of(
        f"{x}.size(-1) > {b.rng.randint(1, 4)}", f"{x}.shape[1] % 2 == 0", f"{x}.dim() == {b.of(3, 4)}", "self.training"
    )
    yes, no = (
        b.of("F.relu({x})", "{x}[..., 1:]", "F.pad({x}, (0, {x}.size(-1) % 2))"),
        b.of("{x} * 2", "{x}", "torch.tanh({x})"),
    )
    b.add(name, before=(f"if {condition}: {name} = {yes.format(x=x)}", f"else: {name} = {no.format(x=x)}"))


def attention(b: Builder) -> None:
    """Scaled dot products, with heads, masks and causality."""
    x, shape = b.pick(3)
    width = shape[-1]
    heads = b.divisor(width)
    if b.chance(0.4):
        module, line = b.member(
            "attention", f"nn.MultiheadAttention({width}, {heads}, batch_first=True, bias={b.chance(0.7)})"
        )
        b.add(f"{module}({x}, {x}, {x}, need_weights={b.chance(0.3)})[0]", line)
        return
    q, first = b.member("qkv", f"nn.Linear({width}, {3 * width})")
    before = (
        f"q, k, v = {q}({x}).chunk(3, -1)",
        f"q, k, v = (each.unflatten(-1, ({heads}, {width // heads})).transpose(1, 2) for each in (q, k, v))",
    )
    mask = b.of(
        "",
        "",
        ", is_causal=True",
        f", attn_mask=torch.ones({shape[1]}, {shape[1]}, dtype=torch.bool).tril()",
        ", scale=0.5",
    )
    core = f"F.scaled_dot_product_attention(q, k, v{mask})"
    if b.chance(0.4):
        core = f"(torch.softmax(q @ k.transpose(-1, -2) * {b.of('q.size(-1) ** -0.5', '0.5')}, -1) @ v)"
    b.add(f"{core}.transpose(1, 2).flatten(2)", first, before=before)


def normalised_residual(b: Builder) -> None:
    """A transformer's other half."""
    x, shape = b.pick(2, 3, 4)
    width = shape[-1]
    norm, first = b.member("norm", b.of(f"nn.LayerNorm({width})", f"nn.RMSNorm({width})"))
    up, second = b.member("up", f"nn.Linear({width}, {2 * width})")
    down, third = b.member("down", f"nn.Linear({2 * width}, {width})")
    if width < 2:
        raise UnfitError
    b.add(f"{x} + {down}({b.of('F.gelu', 'F.relu', 'F.silu')}({up}({norm}({x}))))", first, second, third)


COMBINATIONS: dict[Production, float] = {
    arithmetic: 5,
    accumulate: 0.7,
    product: 1.5,
    reduction: 2,
    gate: 1,
    residual: 1.5,
    twice: 1,
    tied: 0.6,
    containers: 1,
    by_size: 0.7,
    attention: 1.5,
    normalised_residual: 1,
}
