"""Plain NumPy rewrites that more than one test holds kernels against."""

from __future__ import annotations

import numpy as np

from ana_fx.operators.convolution import Convolution


def windows(x: np.ndarray, kernel, stride, padding, dilation) -> np.ndarray:
    """Every window of a padded int64 array [N, C, *size], as [N, C, *size', *kernel]."""
    rank = len(kernel)
    x = np.pad(x, [(0, 0), (0, 0), *padding])
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    views = np.lib.stride_tricks.sliding_window_view(x, spans, axis=tuple(range(2, 2 + rank)))
    every = tuple(slice(None, None, step) for step in (*stride, *dilation))
    return views[(slice(None), slice(None), *every)]


def convolve(x: np.ndarray, weight: np.ndarray, convolution: Convolution) -> np.ndarray:
    """Convolution in int64, group by group."""
    rank, groups = convolution.rank, convolution.groups
    views = windows(x, weight.shape[2:], convolution.stride, convolution.padding, convolution.dilation)
    parts = zip(np.split(views, groups, axis=1), np.split(weight, groups, axis=0), strict=True)
    kernel_axes = tuple(range(2 + rank, 2 + 2 * rank))
    out = [np.tensordot(v, w, axes=((1, *kernel_axes), tuple(range(1, 2 + rank)))) for v, w in parts]
    return np.moveaxis(np.concatenate(out, axis=-1), -1, 1)
