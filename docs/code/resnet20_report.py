"""Write the report of a ResNet-20 that the site shows: `python docs/code/resnet20_report.py`, into docs/assets.

Random weights and inputs: the report is about arithmetic, not about accuracy.
"""

import sys
import tempfile
from pathlib import Path

import torch

import ana_fx

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # where a script finds `examples`

from examples.networks import ResNet20

torch.manual_seed(0)
x = torch.rand(32, 3, 32, 32)
integer = ana_fx.convert(ana_fx.prepare(ResNet20().eval(), x, precision="int4", calibration=[x]))
with tempfile.TemporaryDirectory() as folder:
    files = [Path(folder) / f"resnet20-{target}.onnx" for target in ("onnxruntime", "integer")]
    for file in files:
        ana_fx.export(integer, file, target=file.stem.split("-")[1])
    page = Path(folder) / "resnet20.html"
    ana_fx.report(integer, page, files=files, inputs=x)
    (ROOT / "docs/assets/resnet20.html").write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
