"""A page on which one draws a digit, and an integer network names it: all that a web server needs, in one folder.

Trains a small network on scikit-learn's digits with ternary weights, writes the integer file and test vectors, and puts
the page and onnxruntime-web (by npm) beside them.

    python examples/browser/build.py
    python -m http.server --directory runs/browser
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch.fx import GraphModule

import ana_fx

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where a script finds `examples`

from examples.quickstart import BATCH_SIZE, Digits, digits_network, load, progress_bar, train

HERE = Path(__file__).resolve().parent
RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
NUM_VECTORS = 200


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, convert, and fill the folder."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    digits = load(seed=0)
    integer = trained_program(digits, options.epochs)
    ana_fx.export(integer, options.out / "model.onnx", target="onnxruntime")
    print(ana_fx.verify(integer, options.out / "model.onnx", digits.test_images))
    vectors = json.dumps(vectors_of(integer, options.out / "model.onnx", digits))
    (options.out / "vectors.json").write_text(vectors, encoding="utf-8")
    for name in ("index.html", "digit.mjs", "levels.mjs"):
        shutil.copy(HERE / name, options.out)
    fetch_runtime(options.out, options.cache)
    print(f"now: python -m http.server --directory {options.out}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=10, help="quantised epochs, after half as many float ones")
    parser.add_argument("--out", type=Path, default=Path("runs/browser"), help="default: runs/browser")
    parser.add_argument("--cache", type=Path, default=Path("runs/npm"), help="where npm installs; default: runs/npm")
    return parser.parse_args(arguments)


def trained_program(digits: Digits, num_epochs: int) -> GraphModule:
    """Ternary weights and 2-bit features, trained from a float network."""
    with progress_bar(Console()) as progress:
        net = digits_network()
        train(net, digits, max(1, num_epochs // 2), progress, "float")
        qat = ana_fx.prepare(net, digits.train_images[:BATCH_SIZE], precision="ternary")
        train(qat, digits, num_epochs, progress, "ternary")
    return ana_fx.convert(qat.eval())


def vectors_of(integer: GraphModule, path: Path, digits: Digits) -> dict[str, object]:
    """Levels of test images, the integers that the program gives for them, and what the page must know of the file."""
    report = ana_fx.inspect(path)
    (entry,), (logits,) = report.inputs, report.outputs
    images = digits.test_images[:NUM_VECTORS]
    levels = torch.round(images / entry.scale).clamp(0, 255) + entry.zero_point
    reals = integer(levels.sub(entry.zero_point) * entry.scale)
    return {
        "input": entry.name,
        "output": logits.name,
        "shape": list(entry.shape),
        "scale": entry.scale,
        "zeroPoint": entry.zero_point,
        "labels": [str(digit) for digit in range(10)],
        "inputs": levels.flatten(1).to(torch.uint8).tolist(),
        "outputs": torch.round(reals.double() / logits.scale).to(torch.int32).tolist(),
    }


def fetch_runtime(out: Path, cache: Path) -> None:
    """Put onnxruntime-web into the folder, by npm where it is not in the cache."""
    installed = cache / "node_modules" / RUNTIME.split("@")[0] / "dist"
    if not installed.exists():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(cache), RUNTIME], check=True)
    for name in RUNTIME_FILES:
        shutil.copy(installed / name, out)


if __name__ == "__main__":
    main()
