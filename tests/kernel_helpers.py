"""Where the tests of Triton kernels run: on a GPU, or in Triton's interpreter if TRITON_INTERPRET=1 asks for it."""

from __future__ import annotations

import os

import pytest
import torch

from ana_fx.kernels.triton_launch import has_triton

__all__ = ["DEVICE", "IS_INTERPRETED", "needs_cuda", "needs_kernels"]

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if IS_INTERPRETED or not torch.cuda.is_available() else "cuda")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
needs_kernels = pytest.mark.skipif(
    not has_triton() or not (IS_INTERPRETED or torch.cuda.is_available()), reason="needs CUDA or Triton's interpreter"
)


def _let_numpy_count() -> None:
    """Triton's interpreter turns arrays of one number into ints, which numpy 2.4 does no longer."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patch_and_count(tensor: type, scope: object) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda number: int(number.handle.data.item()))  # type: ignore[attr-defined]

    interpreter._patch_lang_tensor = patch_and_count


if IS_INTERPRETED and has_triton():
    _let_numpy_count()
