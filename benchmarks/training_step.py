"""A training step of a prepared model over that of the float model, before annealing begins; and a step in eval mode.

With torch.ao's models for QAT in the same run, and Brevitas' where it is installed. On a GPU float32 products may be
TF32, for all alike.
"""

from __future__ import annotations

import copy
import gc
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

import ana_fx
from benchmarks.memory import peak_bytes
from benchmarks.networks import (
    DS_CNN,
    DS_CNN_LARGE,
    MOBILENET_V2,
    MOBILENET_V2_LARGE,
    RESNET18,
    RESNET18_LARGE,
    RESNET50,
    RESNET50_LARGE,
    VGG8_LARGE,
    VGG8_QUARTER,
    VIT,
    VIT_LARGE,
    Network,
)
from benchmarks.results import Row, device_name, print_rows, write_json
from benchmarks.timing import NUM_THREADS, captured, interleaved, training_step_of
from examples.peers.method import PRECISIONS

__all__ = ["main"]

NETWORKS: Mapping[str, Mapping[str, Network]] = {
    "cpu": {
        "vgg8": VGG8_QUARTER,
        "resnet18": RESNET18,
        "resnet50": RESNET50,
        "mobilenet_v2": MOBILENET_V2,
        "ds_cnn": DS_CNN,
        "vit": VIT,
    },
    "cuda": {
        "vgg8": VGG8_LARGE,
        "resnet50": RESNET50_LARGE,
        "mobilenet_v2": MOBILENET_V2_LARGE,
        "ds_cnn": DS_CNN_LARGE,
        "vit": VIT_LARGE,
        "resnet18": RESNET18_LARGE,
    },
}
COMPILED = {"cpu": ("vgg8", "resnet18", "ds_cnn", "mobilenet_v2"), "cuda": ("vgg8", "resnet18")}
MODES = {
    "cpu": ("eager", "bf16", "eval", "compiled"),
    "cuda": ("eager", "bf16", "eval", "captured", "compiled"),  # captured: as a CUDA graph
}
OURS, TORCH_AO, BREVITAS = "int8", "torch.ao", "brevitas"
_FIRST_STATISTICS = "collect_stats_steps"  # of what Brevitas makes: the steps whose numbers give the first scales


def main(
    console: Console,
    num_rounds: int = 25,
    *,
    device: str = "cpu",
    names: Sequence[str] | None = None,
    modes: Sequence[str] | None = None,
    schedule: str = "lsq",
    json_path: Path | None = None,
) -> None:
    """Measure, and print a table when all is measured; a line for each network as it is done.

    Args:
        console: Where to print.
        num_rounds: How often each is timed.
        device: "cpu" or "cuda".
        names: Keys of `NETWORKS`; all by default.
        modes: Some of `MODES`; all by default.
        schedule: As in `prepare`; where it anneals, a step before that begins is measured.
        json_path: Where to write the numbers too.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # for all alike
    rows: list[Row] = []
    known = NETWORKS[device]
    wanted = names or list(known)
    plan = [(name, mode == "compiled") for mode in ("eager", "compiled") for name in wanted]
    for name, is_compiled in plan:  # compilers are slow: last
        chosen = [mode for mode in modes or MODES[device] if (mode == "compiled") == is_compiled]
        if is_compiled and name not in COMPILED[device]:
            continue
        found = [
            _row(known[name], mode, models, num_rounds)
            for mode, models in _models(known[name], device, chosen, schedule)
        ]
        rows += found
        for row in found:
            console.print(*(f"{value:.2f}" if isinstance(value, float) else value for value in row.values()))
        if json_path is not None:
            write_json(json_path, device, rows)
    print_rows(console, f"a training step over the float network's, {device_name(device)}", rows)


def _models(
    network: Network, device: str, modes: Sequence[str], schedule: str
) -> list[tuple[str, dict[str, nn.Module]]]:
    """For each mode the candidates; they are the same modules."""
    if not modes:
        return []
    x = network.batch()
    model = network.model()
    qat = ana_fx.prepare(model, x[:2], precision="int8", schedule=schedule)
    models: dict[str, nn.Module] = {"float": model, OURS: qat}
    if "eager" in modes:
        others = {TORCH_AO: _of_torch_ao(network.model(), x[:2]), BREVITAS: _of_brevitas(network.model(), x[:2])}
        models |= {name: made for name, made in others.items() if made is not None}
    for each in models.values():
        each.to(device)
    qat.train()(x.to(device))  # the first batch sets the scale of the input
    ana_fx.Annealer(qat, total_steps=100)
    return [(mode, models) for mode in modes]


def _of_torch_ao(model: nn.Module, x: Tensor) -> nn.Module | None:
    """torch.ao's model for QAT, if it takes the network."""
    from torch.ao.quantization import get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is deprecated
        try:
            return prepare_qat_fx(copy.deepcopy(model), get_default_qat_qconfig_mapping("fbgemm"), (x,))
        except Exception:  # whatever it cannot trace
            return None


def _of_brevitas(model: nn.Module, x: Tensor) -> nn.Module | None:
    """Brevitas' model for QAT if it is installed, past the steps in which it takes its first scales."""
    if find_spec("brevitas") is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that it could use
        from examples.peers.brevitas_qat import Brevitas
    warnings.filterwarnings("ignore", "Named tensors")  # on which it relies

    qat = Brevitas().prepare(model, x, PRECISIONS["int8"], total_steps=100).net
    for module in qat.modules():
        if hasattr(module, _FIRST_STATISTICS):
            setattr(module, _FIRST_STATISTICS, 1)
    return qat


def _row(network: Network, mode: str, models: Mapping[str, nn.Module], num_rounds: int) -> Row:
    """Milliseconds of the float network, then ratios of time and of peak memory."""
    device = next(models["float"].parameters()).device.type
    x = network.batch().to(device)
    runs: dict[str, Callable[[], object]] = {}
    for name, model in models.items():
        if name in (TORCH_AO, BREVITAS) and mode != "eager":
            continue  # torch.ao computes in float32 only, and its eval mode is not what it deploys
        if mode == "eval":
            runs[name] = _forward_of(model.eval(), x)
        else:
            trained = _compiled(model, device) if mode == "compiled" else model.train()
            step = training_step_of(trained, x, autocasts=mode == "bf16")
            runs[name] = captured(step) if mode == "captured" else step
    rounds = num_rounds if device == "cpu" else min(num_rounds, 4)
    seconds = interleaved(runs, rounds, device)
    peaks = {} if mode in ("eval", "captured") else {name: peak_bytes(run, device) for name, run in runs.items()}
    row: dict[str, float | str] = {"network": network.name, "mode": mode, "float": f"{seconds['float'] * 1e3:.2f} ms"}
    for label, measured in (("time", seconds), ("memory", peaks)):
        for name in (OURS, TORCH_AO, BREVITAS):
            row[f"{label} {name}"] = measured[name] / measured["float"] if name in measured else math.nan
    gc.collect()
    return row


def _compiled(model: nn.Module, device: str) -> nn.Module:
    """As many threads as are timed; said here, since kernels cached for two would be taken for one otherwise."""
    options = {"cpp.threads": NUM_THREADS} if device == "cpu" else None
    model.train().compile(fullgraph=True, dynamic=False, options=options)
    return model


def _forward_of(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    def forward() -> Tensor:
        with torch.no_grad():
            result: Tensor = model(x)
        return result

    return forward
