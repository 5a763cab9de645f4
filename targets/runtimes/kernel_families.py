"""The kernels of onnxruntime that multiply bytes differently, and those of this processor."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from ana_fx.target import Target

__all__ = ["KernelFamily", "proven_families", "this_family"]

_VNNI = ("avx512_vnni", "avx_vnni", "avx_vnni_int8")
_CPU_INFO = Path("/proc/cpuinfo")


class KernelFamily(str, Enum):
    """A kind of processor whose kernels multiply bytes in a way of their own."""

    SSE = "x86 SSE4"
    PAIRS = "x86 AVX2 or AVX-512 without VNNI"  # adds two products in 16 bits
    VNNI = "x86 with VNNI"
    ARM = "Arm NEON"
    WASM = "WebAssembly SIMD"


def proven_families(target: Target, needs_vnni: Sequence[str]) -> tuple[KernelFamily, ...]:
    """The kernels that are proven to compute the integers of a file; none if it is not for onnxruntime.

    Args:
        target: What the file is for.
        needs_vnni: Its layer maps in which two products can leave 16 bits.
    """
    if "onnxruntime" not in target.runtimes:
        return ()
    return tuple(family for family in KernelFamily if not needs_vnni or family is not KernelFamily.PAIRS)


def this_family(machine: str | None = None, flags: frozenset[str] | None = None) -> KernelFamily | None:
    """The kernels that onnxruntime chooses on a processor; None where it cannot be told.

    Args:
        machine: Its architecture, by default this machine's.
        flags: Its features as Linux calls them, by default this machine's.
    """
    machine = (machine or platform.machine()).lower()
    if machine in ("aarch64", "arm64"):
        return KernelFamily.ARM
    flags = _flags() if flags is None else flags
    if machine not in ("x86_64", "amd64") or not flags:
        return None
    if flags.intersection(_VNNI):
        return KernelFamily.VNNI
    return KernelFamily.PAIRS if "avx2" in flags else KernelFamily.SSE


def _flags() -> frozenset[str]:
    """The features of this processor, where Linux tells them."""
    if not _CPU_INFO.exists():
        return frozenset()
    lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))
