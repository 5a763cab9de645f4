"""Productions: convolutions, linear layers, norms, pools, upsampling, padding, dropout."""

from __future__ import annotations

from tests.fuzz.builder import Builder, Production, UnfitError

__all__ = ["LAYERS"]


def convolution(b: Builder) -> None:
    """Grouped, depthwise, dilated, asymmetric, with every padding, as a module or a function."""
    x, shape = b.pick(3, 4, 5)
    axes, channels, groups = len(shape) - 2, shape[1], b.of(1, 1, b.divisor(shape[1]), shape[1])
    out = groups * b.of(1, 1, 2, 3)
    kernel = tuple(b.rng.randint(1, min(3, size + 1)) for size in shape[2:])
    dilation = tuple(b.of(1, 1, 1, 2) for _ in kernel)
    stride = tuple(b.of(1, 1, 2, 3) for _ in kernel)
    padding: object = tuple(b.rng.randint(0, k) for k in kernel)
    if b.chance(0.25):
        stride, padding = (1,) * axes, b.of("same", "valid")
    bias = b.chance(0.5)
    if b.chance(0.15):
        weight, line = b.member("weight", f"nn.Parameter(torch.ones({out}, {channels // groups}, {_csv(kernel)}))")
        b.add(f"F.conv{axes}d({x}, {weight}, None, {stride}, {padding!r}, {dilation}, {groups})", line)
        return
    settings = f"{channels}, {out}, {kernel}, {stride}, {padding!r}, {dilation}, {groups}, {bias}"
    b.call("conv", f"nn.Conv{axes}d({settings})", x)


def transposed(b: Builder) -> None:
    """A transposed convolution."""
    x, shape = b.pick(3, 4, 5)
    axes, channels, groups = len(shape) - 2, shape[1], b.of(1, 1, b.divisor(shape[1]))
    stride = tuple(b.of(1, 2, 2, 3) for _ in range(axes))
    kernel = tuple(b.rng.randint(1, 3) for _ in range(axes))
    padding = tuple(b.rng.randint(0, k - 1) for k in kernel)
    dilation = tuple(b.of(1, 1, 1, 2) for _ in kernel)
    extra = tuple(b.rng.randint(0, s - 1) for s in stride)
    settings = f"{channels}, {groups * b.of(1, 2)}, {kernel}, {stride}, {padding}, {extra}, {groups}, {b.chance(0.5)}"
    b.call("up", f"nn.ConvTranspose{axes}d({settings}, {dilation})", x)


def linear(b: Builder) -> None:
    """On two to five axes, as a module, a function or an operator."""
    x, shape = b.pick(2, 3, 4, 5)
    size, out, form = shape[-1], b.of(1, 2, 3, 5), b.rng.random()
    if form < 0.7:
        b.call("linear", f"nn.Linear({size}, {out}, {b.chance(0.6)})", x)
        return
    transposed = form < 0.9
    weight, line = b.member(
        "weight", f"nn.Parameter(torch.ones({f'{out}, {size}' if transposed else f'{size}, {out}'}))"
    )
    code = b.of(f"F.linear({x}, {weight})", f"{x} @ {weight}.t()") if transposed else f"torch.matmul({x}, {weight})"
    b.add(code, line)


def batch_norm(b: Builder) -> None:
    """Of any rank."""
    x, shape = b.pick(2, 3, 4, 5)
    axes = max(1, len(shape) - 2)
    b.call("norm", f"nn.BatchNorm{axes}d({shape[1]}, eps={b.of(1e-5, 1e-3)}, affine={b.chance(0.8)})", x)


def row_norm(b: Builder) -> None:
    """Norms whose statistics come from each sample."""
    x, shape = b.pick(2, 3, 4, 5)
    axes, kind, channels = len(shape) - 2, b.of("layer", "rms", "group", "instance", "plain", "unit", "own"), shape[1]
    if kind in ("layer", "rms"):
        b.call("norm", f"nn.{'LayerNorm' if kind == 'layer' else 'RMSNorm'}({shape[-1]}, eps={b.of(1e-5, 1e-6)})", x)
    elif kind == "group":
        b.call("norm", f"nn.GroupNorm({b.divisor(channels)}, {channels}, affine={b.chance(0.7)})", x)
    elif kind == "instance" and axes:
        b.call("norm", f"nn.InstanceNorm{axes}d({channels}, affine={b.chance(0.5)})", x)
    elif kind == "plain":
        b.add(f"F.layer_norm({x}, {tuple(shape[b.of(-1, 1) :])})")
    elif kind == "unit":
        b.add(f"F.normalize({x}, dim={b.of(1, -1)})")
    else:
        b.add(f"{x} * torch.rsqrt({x}.square().mean(-1, keepdim=True) + {b.of(1e-5, 0.1)})")


def pool(b: Builder) -> None:
    """Maxima and averages with every option."""
    x, shape = b.pick(3, 4, 5)
    axes = len(shape) - 2
    kernel = tuple(b.rng.randint(1, min(3, size)) for size in shape[2:])
    padding = tuple(b.rng.randint(0, k // 2) for k in kernel)
    stride = tuple(b.of(1, 2, 3, k) for k in kernel)
    ceil = b.chance(0.4)
    if b.chance(0.5):
        dilation = tuple(b.of(1, 1, 1, 2) for _ in kernel)
        settings = f"{kernel}, {stride}, {padding}, {dilation}, ceil_mode={ceil}"
        b.call_either(0.3, f"F.max_pool{axes}d", "pool", f"nn.MaxPool{axes}d", x, settings)
        return
    settings = f"{kernel}, {stride}, {padding}, ceil_mode={ceil}, count_include_pad={b.chance(0.5)}"
    if axes > 1 and b.chance(0.15):
        settings += f", divisor_override={b.of(1, 3, 5)}"
    b.call_either(0.3, f"F.avg_pool{axes}d", "pool", f"nn.AvgPool{axes}d", x, settings)


def adaptive_pool(b: Builder) -> None:
    """To a size that may be larger than the input."""
    x, shape = b.pick(3, 4, 5)
    axes = len(shape) - 2
    kind = b.of("Avg", "Avg", "Max")
    size: object = tuple(b.of(1, 2, 3, s) for s in shape[2:])
    size = b.of(1, size)
    b.call_either(0.3, f"F.adaptive_{kind.lower()}_pool{axes}d", "pool", f"nn.Adaptive{kind}Pool{axes}d", x, f"{size}")


def upsample(b: Builder) -> None:
    """Nearest and linear, to sizes and by factors."""
    x, shape = b.pick(3, 4, 5)
    linear = {3: "linear", 4: "bilinear", 5: "trilinear"}[len(shape)]
    mode = b.of("nearest", "nearest-exact", linear, linear)
    size = tuple(b.rng.randint(1, s + 3) for s in shape[2:])
    to = b.of(f"size={size}", f"scale_factor={b.of(2, 1.5, 0.5)}")
    settings = f"{to}, mode={mode!r}"
    if mode == linear:
        settings += f", align_corners={b.chance(0.5)}"
    b.call_either(0.4, "F.interpolate", "resize", "nn.Upsample", x, settings)


def pad(b: Builder) -> None:
    """With zeros, copies and reflections, negative ones too."""
    x, shape = b.pick(3, 4, 5)
    axes = len(shape) - 2
    sides = tuple(b.of(0, 1, 1, 2) for _ in range(2 * axes))
    kind = b.rng.random()
    if kind < 0.45:
        cut = tuple(b.of(-1, 0, 1) for _ in range(2 * b.rng.randint(1, axes)))
        b.add(f"F.pad({x}, {b.of(sides, sides[:2], cut)})")
    elif kind < 0.65:
        b.add(f"F.pad({x}, {sides}, mode={b.of('reflect', 'replicate', 'circular')!r})")
    elif kind < 0.7:
        b.add(f"F.pad({x}, {sides}, value={b.of(1.0, -0.5)})")
    else:
        b.call(
            "pad",
            f"nn.{b.of('ZeroPad', 'ZeroPad', 'ReflectionPad', 'ReplicationPad', 'CircularPad')}{axes}d({sides})",
            x,
        )


def dropout(b: Builder) -> None:
    """Of numbers and of channels."""
    x, shape = b.pick()
    kinds = {3: "nn.Dropout1d(0.2)", 4: "nn.Dropout2d(0.2)", 5: "nn.Dropout3d(0.2)"}
    code = b.of("nn.Dropout(0.3)", "nn.AlphaDropout(0.1)", kinds.get(len(shape), "nn.Dropout(0.1)"))
    if b.chance(0.3):
        b.add(f"F.dropout({x}, 0.2, self.training)")
    else:
        b.call("drop", code, x)


def shuffle(b: Builder) -> None:
    """Between channels and positions."""
    x, shape = b.pick(4)
    if shape[1] % 4 == 0 and b.chance(0.5):
        b.add(b.of(f"F.pixel_shuffle({x}, 2)", f"F.pixel_unshuffle(F.pixel_shuffle({x}, 2), 2)"))
    elif shape[2] % 2 == 0 and shape[3] % 2 == 0 and b.chance(0.5):
        b.call("shuffle", "nn.PixelUnshuffle(2)", x)
    elif shape[1] > 1:
        b.call("shuffle", f"nn.ChannelShuffle({b.divisor(shape[1])})", x)
    else:
        raise UnfitError


def unfold(b: Builder) -> None:
    """Windows as columns."""
    x, _ = b.pick(4)
    kernel, padding, stride = b.of(1, 2, (2, 1)), b.of(0, 1), b.of(1, 2)
    b.call_either(0.5, "F.unfold", "unfold", "nn.Unfold", x, f"{kernel}, padding={padding}, stride={stride}")


def _csv(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes))


LAYERS: dict[Production, float] = {
    convolution: 8,
    transposed: 2,
    linear: 4,
    batch_norm: 4,
    row_norm: 2,
    pool: 3,
    adaptive_pool: 1,
    upsample: 1.5,
    pad: 2,
    dropout: 0.7,
    shuffle: 0.7,
    unfold: 0.5,
}
