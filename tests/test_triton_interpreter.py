"""The tests of Triton kernels in Triton's interpreter, which must be asked for before Triton is imported.

This covers `kernels/triton_launch.py` too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ana_fx.kernels.triton_launch import has_triton

ROOT = Path(__file__).parent.parent
FILES = (
    "kernels/test_fused_quantizer",
    "kernels/test_exact_products",
    "kernels/test_exact_maps",
    "prepared/test_weight_bank",
    "layers/test_recompute",
)


@pytest.mark.slow
@pytest.mark.skipif(not has_triton(), reason="needs Triton")
@pytest.mark.parametrize("name", FILES)
def test_kernels_pass_their_tests_in_the_interpreter(name):
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", f"tests/{name}.py"]
    run = subprocess.run(command, cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) >= 2
