"""The main program around generated C, with a network that is written by hand in place of a generated one."""

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from examples import microcontroller
from examples.microcontroller import HOST, integer_program, levels_of, logits_of, logits_on
from tests.targets.dialect_helpers import integers

NETWORK = """#include <stdint.h>
static int8_t input[{size}];
static int32_t output[{num_logits}];
static int8_t *const DeeployNetwork_inputs[1] = {{input}};
static int32_t *const DeeployNetwork_outputs[1] = {{output}};
static void InitNetwork(uint32_t core, uint32_t cores) {{}}
static void RunNetwork(uint32_t core, uint32_t cores) {{
  static const int32_t weight[{num_logits}][{size}] = {weight}, bias[{num_logits}] = {bias};
  for (int i = 0; i < {num_logits}; i++) {{
    output[i] = bias[i];
    for (int j = 0; j < {size}; j++) output[i] += weight[i][j] * (input[j] + {offset});
  }}
}}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("lowest", [0.0, -1.0])
def test_what_c_prints_are_the_logits_of_the_program(lowest, tmp_path):
    x = torch.rand(5, 7) * (1 - lowest) + lowest
    program = integer_program(nn.Sequential(nn.Linear(7, 3)), x, "int8")
    head = program.get_submodule("0")
    weight, bias = (head.weight.int() * head.factor).tolist(), head.bias.tolist()
    code = {"weight": c_array(weight), "bias": c_array(bias), "offset": 0 if lowest < 0 else 128}
    (tmp_path / "Network.h").write_text(NETWORK.format(size=7, num_logits=3, **code))
    (tmp_path / "Network.c").write_text("")
    (tmp_path / "kernels.c").write_text("")
    found = logits_on(HOST, tmp_path, program, x, tmp_path, tmp_path / "kernels.c")
    assert np.array_equal(found, integers(program, x)[0])
    assert np.array_equal(found, logits_of(program, x))


def c_array(numbers) -> str:
    return str(numbers).replace("[", "{").replace("]", "}")


def test_levels_are_those_of_the_input_quantizer():
    x = torch.rand(5, 7)
    levels = levels_of(integer_program(nn.Sequential(nn.Linear(7, 3)), x, "int8"), x)
    assert levels.shape == (5, 7)
    assert levels.min() >= 0
    assert levels.max() <= 255


def test_a_command_that_fails_ends_the_example_with_its_messages():
    with pytest.raises(SystemExit, match="failed with exit code 2"):
        microcontroller.run(["sh", "-c", "echo why >&2; exit 2"])


def test_the_tool_is_not_guessed(capsys):
    with pytest.raises(SystemExit):
        microcontroller.parse([])
    assert "--deeploy-python" in capsys.readouterr().err
