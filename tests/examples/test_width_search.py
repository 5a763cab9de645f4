"""The picture of the search: a panel for each network and budget, in colours that can be seen."""

from examples.width_search import Point, picture
from tests.contrast import faint


def test_a_panel_has_a_line_for_one_width_and_one_for_the_search():
    points = [
        Point("ResNet8", budget, "int2", is_searched, cost, accuracy=0.5)
        for budget in ("weight_bytes", "mac_bits")
        for is_searched in (False, True)
        for cost in (1e6, 2e6)
    ]
    figure = picture(points)
    figure.canvas.draw()
    assert [[line.get_label() for line in axes.lines] for axes in figure.axes] == [
        ["one width for all", "searched"]
    ] * 2
    assert [list(line.get_xdata()) for line in figure.axes[1].lines] == [[1.0, 2.0]] * 2
    assert faint(figure) == []
