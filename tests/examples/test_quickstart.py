"""The quickstart runs as a program, and what it ships is what it validated."""

import re
import subprocess
import sys
from pathlib import Path

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.py"
NUM_OUTPUTS = "5,990"  # 599 test images, 10 logits
NUM_COMPARED = 6  # the trained model, the program, two targets with two kinds of border


def test_quickstart_shows_no_difference_and_writes_its_files(tmp_path):
    command = [sys.executable, str(QUICKSTART), "--epochs", "2", "--out", str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert run.returncode == 0, run.stderr
    assert re.findall(rf"(\d+) of {NUM_OUTPUTS}", run.stdout) == ["0"] * NUM_COMPARED
    assert {file.name for file in tmp_path.iterdir()} == {
        "float.onnx",
        "integer_float_io.onnx",
        "integer_integer_io.onnx",
        "onnxruntime_float_io.onnx",
        "onnxruntime_integer_io.onnx",
        "training.png",
    }
