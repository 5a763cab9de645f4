"""The digits are trained under Lightning, and what is shipped is what was trained."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "lightning_digits.py"


def test_lightning_ships_a_verified_file(tmp_path):
    command = [sys.executable, str(EXAMPLE), "--epochs", "2", "--out", str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert run.returncode == 0, run.stderr
    assert "digits.onnx: 0 of 5,990 outputs differ" in run.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["digits.onnx"]
