"""What was measured, as a table and as JSON.

This covers `text/printed.py` too.
"""

import json

from ana_fx.analysis.sensitivities import ActivationSensitivity, Sensitivities, WeightSensitivity

FOUND = Sensitivities(
    (WeightSensitivity(("conv",), {"ternary": 0.5, "int8": 0.001}, 10, (100,), (None,)),),
    (ActivationSensitivity(("conv", "skip"), {"uint8": 0.002}),),
)


def test_it_prints_a_row_for_each_tensor_and_a_column_for_each_width():
    text = str(FOUND)
    assert all(each in text for each in ("conv: weight", "conv, skip: output", "ternary", "uint8", "5.00e-01"))


def test_json_holds_all_that_was_measured():
    data = json.loads(FOUND.to_json())
    assert data["weights"][0]["errors"] == {"ternary": 0.5, "int8": 0.001}
    assert data["activations"][0]["layers"] == ["conv", "skip"]
