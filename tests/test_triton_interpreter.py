"""The tests of Triton kernels in Triton's interpreter, which must be asked for before Triton is imported.

Every kernel that they launch is compiled for GPUs too, which needs none.

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
from tests.recorded_kernels import FILE, compile_recorded

CAPABILITIES = (80, 90)  # Ampere and Hopper
ROOT = Path(__file__).parent.parent
FILES = (
    "kernels/test_fused_quantizer",
    "kernels/test_exact_products",
    "kernels/test_exact_maps",
    "kernels/test_fused_weights",
    "layers/test_recompute",
)


@pytest.mark.slow
@pytest.mark.skipif(not has_triton(), reason="needs Triton")
@pytest.mark.parametrize("name", FILES)
def test_kernels_pass_their_tests_in_the_interpreter_and_compile_for_gpus(name, tmp_path):
    recorded = tmp_path / "kernels"
    plugins = ["-p", "no:cacheprovider", "-p", "tests.recorded_kernels"]
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", *plugins, f"tests/{name}.py"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", FILE: str(recorded)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) >= 1
    launched = recorded.read_text(encoding="utf-8").splitlines()
    assert launched
    for line in launched:
        for capability in CAPABILITIES:
            assert compile_recorded(line, capability)["cubin"], line
