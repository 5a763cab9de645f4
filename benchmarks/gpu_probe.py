"""One run that answers what the CPU cannot: exactness, step times, memory and the cost of eval mode on CUDA."""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import time
import traceback
import warnings

import torch
import torch.nn.functional as F

import ana_fx
import ana_fx.affine_map
import ana_fx.exact_products as exact
import ana_fx.fake_quantize as reference
import ana_fx.quantizers
from ana_fx.affine import Convolution, Linear
from ana_fx.fused_quantizer import Grid, fused_fake_quantize
from ana_fx.noise import NoiseType
from ana_fx.numbers import IntegerType
from ana_fx.pairs import MatMul
from ana_fx.scale import positive
from ana_fx.schedule import Strategy

warnings.filterwarnings("ignore")
START = time.time()
RESULTS: dict = {}


def say(*parts):
    print(f"[{time.time() - START:6.1f}]", *parts, flush=True)


def section(function):
    def run(*arguments):
        try:
            return function(*arguments)
        except Exception:
            say("FAILED", function.__name__, arguments and str(arguments[0])[:60])
            traceback.print_exc(limit=-6)
        return None
    return run


def milliseconds(run, rounds=8, warmup=3):
    for _ in range(warmup):
        run()
    torch.cuda.synchronize()
    times = []
    for _ in range(rounds):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record(); run(); b.record(); torch.cuda.synchronize()
        times.append(a.elapsed_time(b))
    return sorted(times)[len(times) // 2]


def use(enabled):
    """The new kernels, or main's."""
    yes = lambda f: f
    ana_fx.quantizers.is_fused = FUSED if enabled else (lambda *a: False)
    ana_fx.affine_map.fits_int8 = FITS if enabled else (lambda *a: False)
    ana_fx.affine_map.fits_sum = SUMS if enabled else (lambda *a: False)


FUSED, FITS, SUMS = ana_fx.quantizers.is_fused, ana_fx.affine_map.fits_int8, ana_fx.affine_map.fits_sum
U8, S8, IMG = IntegerType(8, False), IntegerType(8, True), IntegerType(8, True, zero_point=117)


@section
def quantizer_bits():
    torch.manual_seed(0)
    bad = cases = 0
    for dtype, shape, per_channel in itertools.product((torch.float32, torch.bfloat16, torch.float16), ((8, 33, 17, 9), (64, 3000), (16, 64, 3, 3)), (False, True)):
        for layout in (torch.contiguous_format, torch.channels_last):
            if layout is torch.channels_last and len(shape) != 4:
                continue
            for (lo, hi, off, mn, mx), std, mean, learn in itertools.product(
                [(-127, 127, 0.5, -torch.inf, torch.inf), (0, 255, 0.5, 0.0, torch.inf), (0, 255, 0.5, 0.0, 6.0), (-1, 1, 0.0, -torch.inf, torch.inf), (-8, 7, 0.5, -0.1, 0.21)],
                (0.5 / 3**0.5, 0.1, 0.0), (0.0, 0.13), (False, True)):
                scale = (torch.rand((shape[0], *[1] * (len(shape) - 1)) if per_channel else ()) * 0.1 + 0.01).cuda().requires_grad_(learn)
                x = torch.randn(shape).to(dtype).cuda()
                x.view(-1)[:7] = torch.tensor([torch.nan, torch.inf, -torch.inf, 0, 3e4, -3e4, 0.005])
                x = x.to(memory_format=layout)
                a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
                m, s = torch.tensor(mean).cuda(), torch.tensor(std).cuda()
                p = positive(scale)
                if mx == torch.inf and mn in (0.0, -torch.inf):
                    levels = reference.Levels(lo, hi, off)
                else:
                    d = p.detach()
                    l = torch.full_like(d, lo) if mn == -torch.inf else torch.round(mn / d)
                    h = torch.full_like(d, hi) if mx == torch.inf else torch.round(mx / d)
                    levels = reference.Levels(l.clamp(lo, 0), h.clamp(0, hi), off)
                y = reference.fake_quantize(a, p, m, s, levels=levels, noise=NoiseType.UNIFORM, strategy=Strategy.MODE, num_neighbours=0, scale_gradient=0.3)
                z = fused_fake_quantize(b, scale, m, s, grid=Grid(lo, hi, off, mn, mx), scale_gradient=0.3)
                g = torch.randn(shape, device="cuda").to(memory_format=layout)
                ga = torch.autograd.grad(y, [a] + [scale] * learn, g)
                gb = torch.autograd.grad(z, [b] + [scale] * learn, g)
                fa, fb = (torch.nan_to_num(t[0].float(), nan=5.0).reshape(-1) for t in (ga, gb))
                odd = torch.isfinite(x).reshape(-1)
                ok = torch.equal(torch.nan_to_num(y, nan=7.0), torch.nan_to_num(z, nan=7.0)) and torch.equal(fa[odd], fb[odd])
                cases += 1
                if not ok and bad < 3:
                    say("differs", dtype, shape, per_channel, layout, lo, hi, std, mean, learn, (torch.nan_to_num(y) != torch.nan_to_num(z)).sum().item(), (fa[odd] != fb[odd]).sum().item())
                bad += not ok
    say(f"fused quantizer against eager on CUDA: {bad} of {cases} cases differ")


@section
def products_bits():
    torch.manual_seed(0)
    bad = cases = 0
    scale = torch.tensor(0.037).cuda()
    def check(affine, x, w, kind, expected):
        nonlocal bad, cases
        got = exact.accumulate_int8(affine, (x.float().cuda() * scale,), (scale,), w.cuda().float(), [kind])
        cases += 1
        ok = torch.equal(got.cpu().long(), expected)
        if not ok and bad < 3:
            say("differs", affine, tuple(x.shape), tuple(w.shape), str(kind), (got.cpu().long() != expected).sum().item())
        bad += not ok
    for kind, (stride, pad, dil), (c, o, g, k), extreme in itertools.product(
        (U8, S8, IMG), ((1, (1, 1), 1), (2, (3, 3), 1), (1, (0, 2), 2)),
        ((3, 64, 1, 7), (64, 64, 1, 3), (128, 256, 1, 1), (512, 48, 1, 3), (32, 64, 4, 3), (96, 96, 96, 3), (24, 48, 24, 5), (40, 20, 1, 1)), (False, True)):
        x = torch.randint(kind.qmin, kind.qmax + 1, (2, c, 13, 15))
        w = torch.randint(-127, 128, (o, c // g, k, k))
        if extreme:
            x.fill_(kind.qmax); w.fill_(127); w[::2] = -127
        x_, w_ = F.pad(x, (*pad, *pad)).double().cuda(), w.double().cuda()
        expected = F.conv2d(x_, w_, None, stride, 0, dil, g).cpu().long()  # float64: exact below 2**53
        check(Convolution((stride,) * 2, (pad,) * 2, (dil,) * 2, g), x, w, kind, expected)
        check(Convolution((stride,) * 2, (pad,) * 2, (dil,) * 2, g), x.to(memory_format=torch.channels_last), w, kind, expected)
    for m, k, n in ((1, 40, 10), (70, 8192, 1000), (500, 777, 33)):
        for kind in (U8, S8):
            x, w = torch.randint(kind.qmin, kind.qmax + 1, (m, k)), torch.randint(-127, 128, (n, k))
            check(Linear(), x, w, kind, x @ w.t())
    for a, b in itertools.product((U8, S8), (U8, S8)):
        p, q = torch.randint(a.qmin, a.qmax + 1, (2, 3, 197, 64)), torch.randint(b.qmin, b.qmax + 1, (2, 3, 64, 197))
        got = exact.accumulate_int8(MatMul(), (p.cuda() * scale, q.cuda() * scale), (scale, scale), None, [a, b])
        cases += 1; bad += not torch.equal(got.cpu().long(), p @ q)
    say(f"int8 products against int64 and float64: {bad} of {cases} cases differ")


@section
def products_time():
    say("ms of one convolution: float TF32 | float64 | int8 windows + _int_mm | ours accumulators | ours finished (levels included)")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for n, c, o, s, k, st, g in ((64, 3, 64, 224, 7, 2, 1), (64, 64, 64, 56, 3, 1, 1), (64, 64, 256, 56, 1, 1, 1), (64, 256, 64, 56, 1, 1, 1), (64, 128, 128, 28, 3, 1, 1), (64, 256, 256, 14, 3, 1, 1), (64, 1024, 256, 14, 1, 1, 1), (64, 512, 512, 7, 3, 1, 1), (64, 512, 2048, 7, 1, 1, 1), (256, 256, 256, 16, 3, 1, 1), (128, 96, 96, 112, 3, 2, 96), (128, 384, 384, 14, 3, 1, 384), (12608, 768, 3072, 1, 1, 1, 1)):
        x = torch.rand(n, c, s, s, device="cuda"); w = torch.randn(o, c // g, k, k, device="cuda")
        xi = torch.randint(0, 256, x.shape, device="cuda").float() * 0.01; wi = torch.randint(-63, 64, w.shape, device="cuda").float()
        sc = torch.tensor(0.01, device="cuda"); p = k // 2
        conv = Convolution((st, st), ((p, p), (p, p)), (1, 1), g)
        fin = exact.Finish(torch.full((o,), 1e-3, device="cuda"), torch.zeros(o, dtype=torch.int32, device="cuda"), torch.tensor([0.0, 255.0, 0.01], device="cuda"), 1)
        t = [milliseconds(lambda: F.conv2d(x, w, None, st, p, 1, g), 5, 3)]
        try:
            xd, wd = x.double(), w.double(); t.append(milliseconds(lambda: F.conv2d(xd, wd, None, st, p, 1, g), 3, 1)); del xd, wd
        except Exception:
            t.append(float("nan"))
        if g == 1 and c % 8 == 0:
            x8 = F.pad(torch.randint(-128, 128, (n, s, s, c), device="cuda", dtype=torch.int8), (0, 0, p, p, p, p)); w8 = torch.randint(-63, 64, (k * k * c, o), device="cuda", dtype=torch.int8).t().contiguous().t()
            oh = (s + 2 * p - k) // st + 1
            def windows():
                v = x8.view(torch.int64); a, b, d, e = v.stride()
                cols = v.as_strided((n, oh, oh, k, k, c // 8), (a, b * st, d * st, b, d, e)).reshape(n * oh * oh, -1).view(torch.int8)
                return torch._int_mm(cols, w8)
            t.append(milliseconds(windows, 5, 2)); del x8
        else:
            t.append(float("nan"))
        t0 = time.time()
        t.append(milliseconds(lambda: exact.accumulate_int8(conv, (xi,), (sc,), wi, [U8]), 5, 2))
        t.append(milliseconds(lambda: exact.accumulate_int8(conv, (xi,), (sc,), wi, [U8], fin), 5, 2))
        xc = xi.to(memory_format=torch.channels_last)
        t.append(milliseconds(lambda: exact.accumulate_int8(conv, (xc,), (sc,), wi, [U8], fin), 5, 2))
        lv = milliseconds(lambda: exact._levels(xi, sc, 128), 5, 1)
        print(f"   {n}x{c}x{s}² -> {o} k{k} s{st} g{g}: " + " ".join(f"{v:8.3f}" for v in t) + f"  levels alone {lv:.3f}", flush=True)


def networks():
    import torchvision.models as tv
    from examples.networks import DSCNN, VGG8
    return {
        "ResNet-50 224² 64": (tv.resnet50, (64, 3, 224, 224)),
        "VGG8 32² 256": (VGG8, (256, 3, 32, 32)),
        "DS-CNN 49x10 512": (DSCNN, (512, 1, 49, 10)),
        "MobileNetV2 224² 128": (tv.mobilenet_v2, (128, 3, 224, 224)),
        "ViT-B/16 224² 64": (tv.vit_b_16, (64, 3, 224, 224)),
    }


def step_of(model, x, autocast=False):
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    def step():
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            loss = model(x).float().square().mean()
        loss.backward()
        optimizer.step()
    return step


def peak_of(run):
    torch.cuda.synchronize(); torch.cuda.reset_peak_memory_stats(); before = torch.cuda.memory_allocated()
    run(); torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


@section
def network(name, make, shape, profile, ao):
    torch.manual_seed(0)
    x = torch.rand(shape); gx = x.cuda()
    row = RESULTS[name] = {}
    model = make().train()
    t = time.time(); qat = ana_fx.prepare(model, x[:2], precision="int8"); row["prepare_s"] = round(time.time() - t, 1)
    gm = copy.deepcopy(model).cuda()
    run = step_of(gm, gx); row["float ms"] = milliseconds(run); row["float MiB"] = peak_of(run)
    run = step_of(gm, gx, True); row["float bf16 ms"] = milliseconds(run)
    gm.eval()
    with torch.no_grad():
        row["float eval ms"] = milliseconds(lambda: gm(gx))
    del gm
    if ao:
        from torch.ao.quantization import get_default_qat_qconfig_mapping
        from torch.ao.quantization.quantize_fx import prepare_qat_fx
        their = prepare_qat_fx(copy.deepcopy(model), get_default_qat_qconfig_mapping("fbgemm"), (x[:2],)).cuda()
        run = step_of(their, gx); row["ao ms"] = milliseconds(run); row["ao MiB"] = peak_of(run); del their
    qat = qat.cuda().train()
    with torch.no_grad():
        qat(gx)
    ana_fx.Annealer(qat, 1000)
    for label, enabled in (("main", False), ("new", True)):
        use(enabled)
        run = step_of(qat, gx); t = time.time(); run(); torch.cuda.synchronize(); row[f"{label} first s"] = round(time.time() - t, 1)
        row[f"{label} ms"] = milliseconds(run); row[f"{label} MiB"] = peak_of(run)
        run = step_of(qat, gx, True); row[f"{label} bf16 ms"] = milliseconds(run)
    if profile:
        profiled(name, step_of(qat, gx))
    qat.eval()
    outs = {}
    for label, enabled in (("main", False), ("new", True)):
        use(enabled)
        with torch.no_grad():
            t = time.time(); outs[label] = qat(gx); torch.cuda.synchronize(); row[f"{label} eval first s"] = round(time.time() - t, 1)
            row[f"{label} eval ms"] = milliseconds(lambda: qat(gx), 3, 1)
    for m in qat.modules():
        if hasattr(m, "learns"):
            m.learns = False
    with torch.no_grad():
        row["new eval, forms kept ms"] = milliseconds(lambda: qat(gx), 4, 2)
    if profile:
        with torch.no_grad():
            profiled(name + " eval, forms kept", lambda: qat(gx))
    row["eval differs"] = int((outs["main"] != outs["new"]).sum())
    with torch.no_grad():
        small = qat(gx[:2])
        cpu = qat.cpu()(x[:2]) if shape[-1] < 100 or "MobileNet" in name else small.cpu()
    row["eval differs from CPU"] = int((small.cpu() != cpu).sum())
    f = row["float ms"]
    say(f"{name}: float {f:.2f} ms; step main ×{row['main ms'] / f:.2f} new ×{row['new ms'] / f:.2f} ao ×{row.get('ao ms', 0) / f:.2f}; "
        f"memory main ×{row['main MiB'] / row['float MiB']:.2f} new ×{row['new MiB'] / row['float MiB']:.2f} ao ×{row.get('ao MiB', 0) / row['float MiB']:.2f}; "
        f"bf16 main ×{row['main bf16 ms'] / row['float bf16 ms']:.2f} new ×{row['new bf16 ms'] / row['float bf16 ms']:.2f}; "
        f"eval main ×{row['main eval ms'] / row['float eval ms']:.2f} new ×{row['new eval ms'] / row['float eval ms']:.2f} kept ×{row['new eval, forms kept ms'] / row['float eval ms']:.2f}; differ {row['eval differs']}, CPU {row['eval differs from CPU']}")
    print("   ", json.dumps({k: round(v, 3) for k, v in row.items()}), flush=True)
    torch.cuda.empty_cache()


def profiled(name, run):
    from torch.profiler import ProfilerActivity, profile
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as p:
        t = time.perf_counter(); run(); queued = time.perf_counter() - t; torch.cuda.synchronize(); wall = time.perf_counter() - t
    kernels = [e for e in p.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    total = {}
    for e in kernels:
        key = e.name.replace("void ", "").replace("at::native::", "")[:70]
        a = total.setdefault(key, [0, 0.0]); a[0] += 1; a[1] += e.device_time
    say(f"profile of {name}: {len(kernels)} kernels, {sum(v[1] for v in total.values()) / 1e3:.2f} ms on the GPU, queued in {queued * 1e3:.1f} ms, wall {wall * 1e3:.1f} ms (with the profiler)")
    for key, (count, us) in sorted(total.items(), key=lambda kv: -kv[1][1])[:14]:
        print(f"      {us / 1e3:8.3f} ms {count:5d} {key}", flush=True)


@section
def invariance():
    """Eval integers under every setting, and the program's."""
    from examples.networks import DSCNN, VGG8
    use(True)
    torch.manual_seed(0)
    for make, shape in ((lambda: VGG8(width_divisor=4), (8, 3, 32, 32)), (DSCNN, (8, 1, 49, 10))):
        x = torch.rand(shape)
        qat = ana_fx.prepare(make(), x, precision="int8", calibration=[x])
        for _ in range(2):
            qat.train()(torch.rand(shape)).square().mean().backward()
        qat.eval(); program = ana_fx.convert(qat)
        with torch.no_grad():
            expected = qat(x)
            found = {"program cpu": program(x)}
            g, gp, gx = copy.deepcopy(qat).cuda().eval(), copy.deepcopy(program).cuda(), x.cuda()
            found["program cuda"] = gp(gx)
            for tf32, bench in itertools.product((False, True), (False, True)):
                torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
                torch.backends.cudnn.benchmark = bench
                found[f"tf32 {tf32} benchmark {bench}"] = g(gx)
                found[f"tf32 {tf32} benchmark {bench} channels_last"] = g(gx.to(memory_format=torch.channels_last))
                with torch.autocast("cuda", torch.bfloat16):
                    found[f"tf32 {tf32} benchmark {bench} autocast"] = g(gx)
            torch.backends.cudnn.benchmark = False
            found["one sample"] = torch.cat([g(gx[i : i + 1]) for i in range(8)])
            found["model channels_last"] = g.to(memory_format=torch.channels_last)(gx)
        bad = [k for k, v in found.items() if not torch.equal(v.cpu().float(), expected)]
        say(f"invariance: {len(found)} settings, different: {bad}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--skip", default="")
    parser.add_argument("--seconds", type=float, default=215)
    arguments = parser.parse_args()
    say(torch.cuda.get_device_name(), torch.__version__)
    for function in (quantizer_bits, products_bits, invariance):
        if function.__name__ not in arguments.skip:
            function()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for name, (make, shape) in networks().items():
        if time.time() - START > arguments.seconds - 35:
            say("no time left for", name)
            continue
        network(name, make, shape, True, "ViT" not in name)
    if time.time() - START < arguments.seconds - 10:
        products_time()


if __name__ == "__main__":
    main()
