"""Contrast of what is drawn, by the formula of WCAG 2.2: graphics need 3 to 1, text 4.5 to 1.

https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import Collection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

OF_GRAPHICS, OF_TEXT = 3.0, 4.5


def contrast(color: Any, background: Any = "white") -> float:
    """The ratio of two colours' luminances, 1 to 21; a translucent colour lies on the background."""
    *front, opacity = to_rgba(color)
    behind = np.array(to_rgba(background)[:3])
    darker, lighter = sorted((_luminance(opacity * np.array(front) + (1 - opacity) * behind), _luminance(behind)))
    return (lighter + 0.05) / (darker + 0.05)


def faint(figure: Figure, *, with_areas: bool = True) -> list[str]:
    """What of a drawn figure has too little contrast: lines, areas by the stronger of face and edge, and texts.

    Grids are left out. So are areas if asked for: confidence bands lie around a line, which is what must be seen.
    """
    found = []
    for artist, needed, colors in _drawn(figure):
        if isinstance(artist, Collection) and not with_areas:
            continue
        best = max(contrast(color) for color in colors)
        if best < needed:
            found.append(f"{artist}: {best:.2f} to 1, needed {needed:g}")
    return found


def _drawn(figure: Figure) -> Iterator[tuple[Artist, float, list[Any]]]:
    grids = {line for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for line in axis.get_gridlines()}
    for line in figure.findobj(Line2D):
        if line.get_visible() and line not in grids and len(line.get_xdata()):
            yield line, OF_GRAPHICS, [to_rgba(line.get_color(), line.get_alpha())]
    for text in figure.findobj(Text):
        if text.get_text():
            yield text, OF_TEXT, [to_rgba(text.get_color(), text.get_alpha())]
    for area in figure.findobj(Collection):
        if area.get_paths():
            edges = area.get_edgecolor() if area.get_linewidth()[0] else []
            yield area, OF_GRAPHICS, [*area.get_facecolor(), *edges]
    for legend in figure.findobj(lambda artist: hasattr(artist, "legend_handles")):
        for handle in legend.legend_handles:
            if not isinstance(handle, Line2D):
                yield handle, OF_GRAPHICS, [handle.get_facecolor(), handle.get_edgecolor()]


def _luminance(rgb: np.ndarray) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
