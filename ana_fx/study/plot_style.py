"""What all pictures share: matplotlib where it is installed, and colours that can be seen on white.

All that is drawn, but for what fills an outline, has a contrast of 3 to 1 and more, text of 4.5 to 1 (WCAG 2.2).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

__all__ = ["INK", "PALE", "STYLE", "matplotlib_part", "shade"]

INK, PALE = "#24313d", "#87919b"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "legend.frameon": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
_MAP, _LIGHTEST = "plasma", 0.62  # a map of colours, and how far on it they are dark enough


def matplotlib_part(name: str) -> Any:
    """A part of matplotlib, or the error that says how to get it."""
    try:
        import matplotlib
        import matplotlib.figure
        import matplotlib.patches
    except ImportError as error:
        raise ImportError("plots need matplotlib: install the extra `plot`, pip install 'ana_fx[plot]'") from error
    part: ModuleType | Any = getattr(matplotlib, name)
    return part


def shade(share: float) -> tuple[float, ...]:
    """A colour between the darkest, 0, and the lightest, 1."""
    color: tuple[float, ...] = matplotlib_part("colormaps")[_MAP](_LIGHTEST * share)
    return color
