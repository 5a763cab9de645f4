"""From a network to C, and to a Cortex-M: every logit equal.

Exports DS-CNN or VGG8 for Deeploy, lets Deeploy's generic platform write C, compiles that, runs it, and compares every
logit with the integer program. On the machine at hand:

    python examples/microcontroller.py --deeploy-python DEEPLOY/bin/python \
        --include KERNELS/inc --library KERNELS/libkernels.a

On a Cortex-M4 in qemu, with kernels that were compiled for it:

    python examples/microcontroller.py --cortex-m --deeploy-python DEEPLOY/bin/python \
        --include KERNELS/inc --library KERNELS/cortex-m4/libkernels.a

DEEPLOY is an environment in which `pip install deeploy-pulp` ran; it pins versions that ana_fx cannot use, hence its
own. KERNELS are Deeploy's C kernels (TargetLibraries/Generic in its repository) as a static library, compiled as its
documentation says, for Cortex-M with the options in CORTEX_M below. The cross compiler is Arm's (gcc-arm-none-eabi with
newlib), the emulator qemu-system-arm.

The weights are not trained here: what is shown does not depend on them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import ana_fx

sys.path.append(str(Path(__file__).resolve().parent.parent))  # where a script finds `examples`

from examples.networks import DSCNN, VGG8

NETWORKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "ds-cnn": (DSCNN(width=16), (1, 49, 10)),
    "vgg8": (VGG8(width_divisor=16), (3, 32, 32)),
}
VECTORS = """
extern void _start(void);
extern char stack_top[];
__attribute__((section(".vectors"), used)) static void *const vectors[2] = {stack_top, (void *)_start};
"""
MAIN = """#include <stdio.h>
#include <string.h>
#include "Network.h"
{vectors}
static const int8_t samples[{count}][{size}] = {{{samples}}};

int main(void) {{
  InitNetwork(0, 1);
  for (int sample = 0; sample < {count}; sample++) {{
    memcpy(DeeployNetwork_inputs[0], samples[sample], {size});
    RunNetwork(0, 1);
    const int32_t *logits = DeeployNetwork_outputs[0];
    for (int index = 0; index < {num_logits}; index++) printf("%ld\\n", (long)logits[index]);
  }}
  return 0;
}}
"""


@dataclass(frozen=True)
class Machine:
    """How to compile for a machine and to run there.

    Args:
        compiler: A C compiler, with its options.
        run: What runs a program, before its path.
        has_vectors: Whether a program starts from a table of vectors.
    """

    compiler: tuple[str, ...]
    run: tuple[str, ...] = ()
    has_vectors: bool = False


HOST = Machine(("cc", "-O2"))
CORTEX_M = Machine(
    (
        "arm-none-eabi-gcc",
        "-O2",
        "-mcpu=cortex-m4",
        "-mthumb",
        "--specs=rdimon.specs",
        "-Wl,--section-start=.vectors=0x0",
        "-Wl,-Tdata=0x20000000",
        "-Wl,--defsym=stack_top=0x20400000",
    ),
    run=("qemu-system-arm", "-M", "mps2-an386", "-nographic", "-semihosting", "-kernel"),
    has_vectors=True,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare every logit; the exit code is 1 if any differs."""
    options = parse(arguments)
    torch.manual_seed(0)
    net, shape = NETWORKS[options.network]
    program = integer_program(net, torch.rand(16, *shape), options.precision)
    x = torch.rand(options.samples, *shape)
    with TemporaryDirectory() as name:
        folder = Path(name)
        ana_fx.export(program, folder / "network.onnx")
        generator = Path(__file__).with_name("deeploy_to_c.py")
        run([options.deeploy_python, generator, folder / "network.onnx", folder])
        found = logits_on(CORTEX_M if options.cortex_m else HOST, folder, program, x, options.include, options.library)
    wanted = logits_of(program, x)
    differing = int((found != wanted).sum())
    where = "a Cortex-M4 in qemu" if options.cortex_m else "this machine"
    print(f"{options.network}, {options.precision}, on {where}: {differing} of {wanted.size} logits differ")
    return int(differing > 0)


def integer_program(net: nn.Module, x: Tensor, precision: str) -> GraphModule:
    """The program of a network that has seen one batch."""
    qat = ana_fx.prepare(net, x, precision=precision, target="deeploy")
    qat.train()(x)
    return ana_fx.convert(qat)


def levels_of(program: GraphModule, x: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """What the first node of a program, which quantises its input, makes of floats."""
    (quantize,) = (module for name, module in program.named_children() if name.endswith("_quantizer"))
    levels: np.ndarray[tuple[int, ...], np.dtype[np.int64]] = quantize(x).numpy().astype(np.int64)
    return levels


def logits_of(program: GraphModule, x: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The integers behind the program's float logits."""
    (dequantize,) = (module for name, module in program.named_children() if name.endswith("_dequantize"))
    with torch.no_grad():
        return torch.round(program(x) / dequantize.scale).numpy().astype(np.int64)


def logits_on(
    machine: Machine, folder: Path, program: GraphModule, x: Tensor, include: Path, library: Path
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Compile Deeploy's C with a main program around it, and run it."""
    levels = levels_of(program, x).reshape(len(x), -1)
    num_logits = logits_of(program, x[:1]).size
    stored = levels - (128 if levels.min() >= 0 else 0)
    source = MAIN.format(
        vectors=VECTORS if machine.has_vectors else "",
        count=len(x),
        size=levels.shape[1],
        samples=",".join(f"{{{','.join(map(str, row))}}}" for row in stored),
        num_logits=num_logits,
    )
    (folder / "main.c").write_text(source)
    paths = [f"-I{include}", f"-I{folder}", f"{folder}/main.c", f"{folder}/Network.c", str(library), "-lm"]
    run([*machine.compiler, *paths, "-o", f"{folder}/network.elf"])
    output = run([*machine.run, f"{folder}/network.elf"])
    return np.array(output.split(), np.int64).reshape(len(x), num_logits)


def run(command: Sequence[str | Path]) -> str:
    """What a command prints; SystemExit with its messages if it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deeploy-python", type=Path, required=True, help="the interpreter that imports Deeploy")
    parser.add_argument("--include", type=Path, required=True, help="the headers of Deeploy's generic kernels")
    parser.add_argument("--library", type=Path, required=True, help="these kernels, compiled")
    parser.add_argument("--cortex-m", action="store_true", help="cross-compile, and run in qemu")
    parser.add_argument("--network", choices=NETWORKS, default="ds-cnn")
    parser.add_argument("--precision", default="ternary")
    parser.add_argument("--samples", type=int, default=4)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
