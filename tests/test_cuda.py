"""What is promised of GPUs, on a GPU: the integers of the CPU under every setting, and no wait of the host."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torchvision.models import mobilenet_v2
from torchvision.models.vision_transformer import VisionTransformer

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.layers import function_map, input_quantizers, quantizers
from ana_fx.layers.layer_map import LayerMap, Phase
from benchmarks.timing import captured
from examples.networks import DSCNN, VGG8
from tests.kernel_helpers import needs_cuda

pytestmark = [
    needs_cuda,
    pytest.mark.filterwarnings("ignore:.*TF32"),  # there is a new way of saying it, since torch 2.9
    pytest.mark.filterwarnings("ignore:.*[Ss]ynchronization debug mode"),  # a prototype, it says
]


def vit() -> VisionTransformer:
    """A small one, whose last layer does not start at zero: then there would be nothing to compare."""
    model = VisionTransformer(32, 8, 2, 4, 64, 128)
    nn.init.normal_(model.heads.head.weight, std=0.1)
    return model


BLOCKS = [[1, 16, 1, 1], [6, 24, 2, 2]]  # few: a kernel is compiled for each kind of shape
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vgg8": (lambda: VGG8(width_divisor=4), (6, 3, 32, 32)),
    "ds_cnn": (DSCNN, (6, 1, 49, 10)),
    "mobilenet": (
        lambda: mobilenet_v2(num_classes=10, width_mult=0.5, inverted_residual_setting=BLOCKS, dropout=0.0),
        (6, 3, 24, 24),
    ),
    "vit": (vit, (6, 3, 32, 32)),
}


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Settings of torch as they were."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


def trained(name: str, precision: str = "int8", schedule: str = "best-dynamic") -> tuple[GraphModule, Tensor]:
    """A model after some steps on the CPU, and inputs."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    x = torch.rand(shape)
    qat = ana_fx.prepare(make(), x, precision=precision, schedule=schedule, calibration=[x])
    optimizer = torch.optim.SGD(qat.parameters(), lr=1e-2)
    for _ in range(2):
        qat.train()(torch.rand(shape)).square().mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    return qat, x


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "int8") for name in NETWORKS), ("vgg8", "int4"), ("ds_cnn", "ternary")]
)
def test_eval_mode_gives_the_integers_of_the_cpu_under_every_setting(name, precision):
    qat, x = trained(name, precision)
    with torch.no_grad():
        expected = qat.eval()(x)
        on_gpu, there = copy.deepcopy(qat).cuda().eval(), x.cuda()
        found = [torch.cat([on_gpu(there[i : i + 1]) for i in range(len(x))])]
        for allows_tf32, searches in itertools.product((False, True), (False, True)):
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allows_tf32
            torch.backends.cudnn.benchmark = searches
            found += [on_gpu(there), on_gpu(there.to(memory_format=torch.channels_last))]
            with torch.autocast("cuda", torch.bfloat16):
                found.append(on_gpu(there))
        found.append(on_gpu.to(memory_format=torch.channels_last)(there))
        found.append(ana_fx.convert(qat).cuda()(there))
    assert all(torch.equal(each.cpu().float(), expected) for each in found)
    assert len(expected.unique()) > 10


@pytest.mark.parametrize("name", NETWORKS)
def test_a_frozen_layer_map_trains_as_eval_mode_computes(name):
    qat, x = trained(name)
    qat.cuda()
    annealer = ana_fx.Annealer(qat, total_steps=10)
    for _ in range(4):
        annealer.step()
    frozen = [each for each in layer_maps(qat).values() if each.phase is Phase.DEPLOYED]
    assert frozen
    outputs: dict[tuple[LayerMap, bool], Tensor] = {}
    for each in frozen:
        each.register_forward_hook(lambda module, _, y: outputs.update({(module, module.training): y.detach()}))
    for is_training in (True, False):
        qat.train(is_training)(x.cuda())
    assert all(torch.equal(outputs[each, True], outputs[each, False]) for each in frozen)


@pytest.mark.parametrize(("is_training", "schedule"), [(True, "best-dynamic"), (True, "lsq"), (False, "lsq")])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_step_waits_for_the_gpu(name, is_training, schedule):
    qat, x = trained(name, schedule=schedule)
    there = x.cuda()
    qat.cuda().train(is_training)
    optimizer = torch.optim.SGD(qat.parameters(), lr=1e-3)

    def step() -> None:
        y = qat(there)
        if is_training:
            y.square().mean().backward()
            optimizer.step()

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("schedule", ["best-dynamic", "lsq"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_captured_as_a_cuda_graph_is_that_step(name, schedule):
    torch.backends.cudnn.deterministic = True
    qat, x = trained(name, schedule=schedule)
    qat.cuda().train()
    optimizer = torch.optim.SGD(qat.parameters(), lr=1e-3)
    there = x.cuda()

    def step() -> None:
        optimizer.zero_grad()
        qat(there).square().mean().backward()
        optimizer.step()

    replay = captured(step)
    start = copy.deepcopy(qat.state_dict())
    found = []
    for run in (replay, step):  # of one model: a copy has no hook, and adds up in another order
        qat.load_state_dict(start)
        run()
        run()
        found.append(copy.deepcopy(list(qat.state_dict().values())))
    assert all(map(torch.equal, *found))
    assert not all(map(torch.equal, found[0], start.values()))


@pytest.mark.parametrize("schedule", ["best-dynamic", "lsq"])
@pytest.mark.parametrize("name", ["vgg8", "vit"])
def test_a_training_step_with_kernels_is_the_one_of_eager_code(name, schedule, monkeypatch):
    torch.backends.cudnn.deterministic = True
    qat, x = trained(name, schedule=schedule)
    qat.cuda().train()
    ana_fx.Annealer(qat, 100)
    eager = copy.deepcopy(qat)
    qat(x.cuda()).square().mean().backward()
    for room, question in (
        (quantizers, "has_kernels"),
        (input_quantizers, "rounds_at_once"),
        (function_map, "recomputes"),
    ):
        monkeypatch.setattr(room, question, lambda *_: False)
    eager(x.cuda()).square().mean().backward()
    assert all(each.grad.any() for path, each in qat.named_parameters() if path.endswith("weight"))
    for (path, a), (_, b) in zip(qat.named_parameters(), eager.named_parameters(), strict=True):
        if a.grad is not None and path.endswith("scale"):  # sums in another order
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)
        elif a.grad is not None:
            assert torch.equal(a.grad, b.grad), path
