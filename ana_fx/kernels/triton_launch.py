"""Launching Triton kernels at little cost to the host.

`kernel[grid](…)` asks of each argument what it must be compiled for, at every call, which takes the host longer than
many kernels take the GPU. Here the caller says in a few words what decides that, and the compiled kernel is kept.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Hashable
from functools import cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["has_kernels", "has_triton", "launch"]

_ALIGNMENT = 16  # bytes; Triton compiles for pointers that are multiples of it
_compiled: dict[tuple[Any, ...], Any] = {}


@cache
def has_triton() -> bool:
    """Whether Triton is installed and compiles for the GPUs of this torch; those of AMD are left to eager code."""
    return torch.version.hip is None and importlib.util.find_spec("triton") is not None


def has_kernels(x: Tensor) -> bool:
    """Whether kernels are launched for a tensor; a compiler that traces makes its own."""
    return x.is_cuda and not torch.compiler.is_compiling() and x.numel() > 0 and has_triton()


@cache
def _launches_directly() -> bool:
    """Whether this is one of the Tritons whose compiled kernels are known to be called as below."""
    import triton  # type: ignore[import-untyped]  # it has no types

    major, minor = triton.__version__.split(".")[:2]
    return (3, 3) <= (int(major), int(minor)) <= (3, 6)


def launch(
    kernel: Any,
    grid: tuple[int, int, int],
    tensors: tuple[Tensor, ...],
    numbers: tuple[float, ...],
    constants: tuple[Any, ...],
    key: Hashable,
    **options: Any,
) -> None:
    """Run a kernel whose arguments are tensors, then numbers, then constants.

    Args:
        kernel: What `triton.jit` made.
        grid: The number of programs along each of three axes.
        tensors: On one device.
        numbers: Ints and floats.
        constants: What the kernel declares as `tl.constexpr`.
        key: Calls with one key have tensors of the same dtypes, and numbers that Triton tells apart in no way: which
            of those that the kernel specialises are 1 or multiples of 16, which need 64 bits.
        options: Of the compiler, the same at every call with one key.
    """
    if not tensors[0].is_cuda:  # Triton's interpreter
        kernel[grid](*tensors, *numbers, *constants, **options)
        return None
    device = tensors[0].device.index
    if device != torch._C._cuda_getDevice():  # CUDA runs already: its tensors are here
        with torch.cuda.device(device):
            return launch(kernel, grid, tensors, numbers, constants, key, **options)
    addresses = [tensor.data_ptr() for tensor in tensors]
    together = 0
    for address in addresses:
        together |= address
    full_key = (id(kernel), device, key, constants)  # kernels live as long as their modules, and hash slowly
    known = None if together % _ALIGNMENT else _compiled.get(full_key)
    if known is not None:
        run, function, metadata = known
        stream = torch._C._cuda_getCurrentRawStream(device)
        run(*grid, stream, function, metadata, None, None, None, *addresses, *numbers, *constants)
        return None
    compiled = kernel[grid](*tensors, *numbers, *constants, **options)
    if not together % _ALIGNMENT and _launches_directly():
        _compiled[full_key] = (compiled.run, compiled.function, compiled.packed_metadata)
    return None
