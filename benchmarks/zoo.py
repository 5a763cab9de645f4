"""`python -m benchmarks.zoo`: how far every torchvision model gets, as a table in docs/zoo.md.

Each model is prepared, trained for two steps, converted, exported to each target and verified, in a
process of its own. What is finished is kept in build/zoo.jsonl, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torchvision
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torchvision.models import get_model, list_models, segmentation, video

import ana_fx
from ana_fx.graph import layer_maps
from ana_fx.targets.files.atomic_files import write_files

__all__ = ["main"]

PRECISIONS = ("int8", "int4")
TARGETS = ("onnxruntime", "integer")
STORE, REPORT = Path("build/zoo.jsonl"), Path("docs/zoo.md")
BATCH = 2
SECONDS = 900  # after which a model is given up
FAMILIES: dict[str, Any] = {"classification": torchvision.models, "segmentation": segmentation, "video": video}
_LARGER_INPUTS = {"inception_v3": 75, "maxvit_t": 224, "vit_h_14": 56, "s3d": 224, "mvit_v1_b": 224, "mvit_v2_s": 224}
_FRAMES = {"s3d": 16, "mvit_v1_b": 16, "mvit_v2_s": 16}  # of 8 for the others; both are the smallest that these take


def main() -> None:
    """Run what is not in the store yet, then write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("patterns", nargs="*", default=["*"], metavar="PATTERN", help="models, such as 'resnet*'")
    parser.add_argument("--again", action="store_true", help="run these models again even if the store has them")
    parser.add_argument("--case", nargs=2, metavar=("MODEL", "PRECISION"), help="run one and print it as JSON")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(run_case(*arguments.case)))
        return
    _run_all(arguments.patterns, again=arguments.again)
    REPORT.parent.mkdir(exist_ok=True)
    write_files({REPORT: report(_stored()).encode()})
    Console().print(f"{REPORT} is written")


def _run_all(patterns: Iterable[str], *, again: bool) -> None:
    known = {(row["model"], row["precision"]) for row in _stored()}
    cases = [
        (name, precision)
        for module in FAMILIES.values()
        for name in list_models(module=module)
        if any(fnmatchcase(name, pattern) for pattern in patterns)
        for precision in PRECISIONS
        if again or (name, precision) not in known
    ]
    STORE.parent.mkdir(exist_ok=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress, STORE.open("a") as store:
        task = progress.add_task("zoo", total=len(cases))
        for name, precision in cases:
            progress.update(task, description=f"{name} {precision}")
            print(json.dumps(_run_apart(name, precision)), file=store, flush=True)
            progress.advance(task)


def _run_apart(name: str, precision: str) -> dict[str, Any]:
    """One case in a process of its own, whose memory goes with it."""
    command = [sys.executable, "-m", "benchmarks.zoo", "--case", name, precision]
    failed = {"model": name, "precision": precision, "stage": "process"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return failed | {"error": f"took more than {SECONDS} s"}
    if done.returncode:
        killed = f"killed by signal {-done.returncode}, as when memory runs out"
        return failed | {"error": (done.stderr.strip().splitlines() or [killed])[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_case(name: str, precision: str) -> dict[str, Any]:
    """One model at one precision: what was measured, and where it stopped if it did."""
    torch.manual_seed(0)
    row: dict[str, Any] = {"model": name, "precision": precision, "seconds": {}, "different": {}}
    x = _example(name)
    row["input"] = "x".join(map(str, x.shape[1:]))

    def stage(label: str, run: Callable[[], Any]) -> Any:
        row["stage"] = label
        start = time.perf_counter()
        result = run()
        row["seconds"][label] = time.perf_counter() - start
        return result

    try:
        model = stage("build", lambda: _build(name).eval())
        qat = stage("prepare", lambda: ana_fx.prepare(model, x, precision=precision))
        row["layer_maps"] = len(layer_maps(qat))
        stage("train", lambda: _train(qat, x))
        program = stage("convert", lambda: ana_fx.convert(qat.eval()))
        with TemporaryDirectory() as folder:
            for target in TARGETS:
                path = Path(folder) / f"{target}.onnx"
                written = stage(f"export {target}", partial(ana_fx.export, program, path, target=target))
                row[f"bytes {target}"] = written.bytes
                runtimes = None if name in list_models(module=torchvision.models) else ("onnxruntime",)
                verify = partial(ana_fx.verify, program, path, torch.rand_like(x), runtimes=runtimes)
                checked = stage(f"verify {target}", verify)
                row["different"][target] = checked.num_different
        row["stage"] = "done"
    except Exception as error:  # whatever goes wrong is what the report is about
        row["error"] = f"{type(error).__name__}: {str(error).strip()}"
    return row


def _train(qat: nn.Module, x: Tensor) -> None:
    qat.train()
    optimizer = torch.optim.SGD([p for p in qat.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(2):
        loss: Any = sum(leaf.square().mean() for leaf in pytree.tree_leaves(qat(torch.rand_like(x))))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def _build(name: str) -> nn.Module:
    settings: dict[str, Any] = {"weights": None}
    if name.startswith("vit_"):
        settings["image_size"] = _side(name)
    if name in ("googlenet", "inception_v3"):
        settings["init_weights"] = False  # slow, and of no matter here
    if name in list_models(module=segmentation):
        settings["weights_backbone"] = None
    return get_model(name, **settings)  # type: ignore[no-any-return]  # untyped in torchvision


def _side(name: str) -> int:
    return _LARGER_INPUTS.get(name, 64)


def _example(name: str) -> Tensor:
    side = _side(name)
    frames = (_FRAMES.get(name, 8),) if name in list_models(module=video) else ()
    return torch.rand(BATCH, 3, *frames, side, side)


def _stored() -> list[dict[str, Any]]:
    """The last row of each case."""
    if not STORE.exists():
        return []
    rows = [json.loads(line) for line in STORE.read_text().splitlines()]
    return list({(row["model"], row["precision"]): row for row in rows}.values())


def report(rows: list[dict[str, Any]]) -> str:
    """The table of the rows, as Markdown."""
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    lines = [
        "# Models of torchvision",
        "",
        f"Written by `make zoo` with {versions}. Random weights; each model is prepared for onnxruntime, trained",
        "for two steps, converted, exported to `onnxruntime` and to `integer`, and verified on random images; the",
        "`integer` files of classification models in `onnx.reference` too, which takes minutes for the others. A",
        "number under a precision is how many outputs of both files differ from the trained model; seconds are",
        f"wall-clock ones of int8, of a process that may have had to share the machine and its {_memory()} GiB.",
    ]
    for family, module in FAMILIES.items():
        every = list_models(module=module)
        names = [name for name in every if any(row["model"] == name for row in rows)]
        done = [name for name in names if all(_is_done(rows, name, precision) for precision in PRECISIONS)]
        lines += ["", f"## {family.capitalize()}", ""]
        lines += [f"{len(every)} models, of which {len(names)} were run and {len(done)} passed at every precision.", ""]
        if not names:
            continue
        lines += ["| model | input | layer maps | int8 | int4 | prepare | convert | export | stops at |"]
        lines += ["|---|---|--:|--:|--:|--:|--:|--:|---|"]
        lines += [_line(rows, name) for name in names]
    return "\n".join(lines) + "\n"


def _row(rows: list[dict[str, Any]], name: str, precision: str) -> dict[str, Any]:
    return next((row for row in rows if (row["model"], row["precision"]) == (name, precision)), {})


def _is_done(rows: list[dict[str, Any]], name: str, precision: str) -> bool:
    return _row(rows, name, precision).get("stage") == "done"


def _line(rows: list[dict[str, Any]], name: str) -> str:
    cases = [_row(rows, name, precision) for precision in PRECISIONS]
    counts = [str(sum(case["different"].values())) if case.get("stage") == "done" else "–" for case in cases]
    seconds = cases[0].get("seconds", {})
    times = [_seconds(seconds.get(key)) for key in ("prepare", "convert", f"export {TARGETS[0]}")]
    stops = [f"{case['stage']}: {_first_line(case['error'])}" for case in cases if "error" in case]
    cells = [name, cases[0].get("input", ""), str(cases[0].get("layer_maps", "")), *counts, *times]
    return f"| {' | '.join([*cells, stops[0].replace('|', '/') if stops else ''])} |"


def _memory() -> int:
    """GiB of this machine."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def _first_line(error: str) -> str:
    """Without the folders that packages are installed in."""
    return re.sub(r"\S*/site-packages/", "", error.splitlines()[0])


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


if __name__ == "__main__":
    main()
