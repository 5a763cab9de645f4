"""The report itself is tested with `compare_layers`; here what it makes of extremes."""

import json
import math

from ana_fx.analysis.layer_errors import LayerError, LayerErrors


def rows(*ratios):
    return tuple(
        LayerError(f"layer{index}", "sum", ratio, ratio, 0.0, 0, 0, 1.0, 1.0) for index, ratio in enumerate(ratios)
    )


def test_what_is_infinite_is_shown_and_is_null_in_json():
    report = LayerErrors(rows(math.inf, 10.0))
    assert "∞" in str(report)
    assert json.loads(report.to_json())["layers"][0]["snr"] is None
    assert report.worst.name == "layer1"


def test_a_picture_of_a_perfect_network_can_be_drawn():
    assert len(LayerErrors(rows(math.inf)).plot().axes[0].patches) == 2
