"""A plugin of pytest that writes down what kernels are launched with, so that they can be compiled where no GPU is.

In the interpreter kernels only run; of a process without it a compiler makes what a GPU would get.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

__all__ = ["FILE", "compile_recorded"]

FILE = "RECORDED_KERNELS"  # the environment variable that says where to
_TYPES = {
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64", torch.bool: "i1",
    torch.int8: "i8", torch.uint8: "u8", torch.int16: "i16", torch.int32: "i32", torch.int64: "i64",
}  # fmt: skip
_calls: set[str] = set()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Wrap `launch` wherever it was imported."""
    for name, module in list(sys.modules.items()):
        if name.startswith("ana_fx.") and name != "ana_fx.kernels.triton_launch" and hasattr(module, "launch"):
            module.launch = _recording(module.launch)


def _recording(launch: Callable[..., None]) -> Callable[..., None]:
    def record(kernel: Any, grid: Any, tensors: Any, numbers: Any, constants: Any, key: Any, **options: Any) -> None:
        given = [f"*{_TYPES[tensor.dtype]}" for tensor in tensors]
        given += ["fp32" if isinstance(number, float) else "i32" for number in numbers]
        _calls.add(json.dumps([kernel.fn.__module__, kernel.fn.__name__, given, constants, options], sort_keys=True))
        launch(kernel, grid, tensors, numbers, constants, key, **options)

    return record


def pytest_unconfigure(config: pytest.Config) -> None:
    """Write them down."""
    with open(os.environ[FILE], "w", encoding="utf-8") as file:
        file.write("\n".join(sorted(_calls)))


def compile_recorded(line: str, capability: int) -> dict[str, Any]:
    """What Triton makes of a kernel for GPUs of NVIDIA of that capability."""
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, name, given, constants, options = json.loads(line)
    kernel = getattr(importlib.import_module(module), name)
    first = len(given)
    signature = dict(zip(kernel.arg_names, [*given, *["constexpr"] * len(constants)], strict=True))
    constexprs = {(first + index,): constant for index, constant in enumerate(constants)}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs)
    made: dict[str, Any] = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm
    return made
