"""The commands that need no training, from a float model and a file of inputs: `command_inputs.py` too."""

import json
import sys

import numpy as np
import pytest
import torch

import ana_fx
from tests.models import Chain, example
from tests.targets.test_command_line import run


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    np.save("data.npy", example(Chain).numpy())
    torch.manual_seed(1)
    torch.save(Chain().state_dict(), "float.pt")
    return "data.npy"


def test_export_quantises_a_float_model_without_training(data):
    result = run(
        "export", "tests.models:Chain", "out.onnx", "--state", "float.pt", "--calibration", data, "--save", "out.anafx"
    )
    assert result.exit_code == 0, result.stderr
    assert ana_fx.verify(ana_fx.load("out.anafx"), "out.onnx").num_different == 0


def test_export_says_that_it_needs_a_state_or_calibration(data):
    result = run("export", "tests.models:Chain", "out.onnx")
    assert result.exit_code == 1
    assert "needs --state and --example of a trained model, or --calibration" in result.stderr


def test_compare_writes_a_table_json_and_a_page(data):
    arguments = ("compare", "tests.models:Chain", "--state", "float.pt", "--data", data, "--precision", "int4")
    assert "own SNR, dB" in run(*arguments).stdout
    layers = json.loads(run(*arguments, "--json", "--html", "out.html").stdout)["layers"]
    assert layers[-1]["name"] == "head"
    with open("out.html", encoding="utf-8") as page:
        assert "head" in page.read()


def test_search_writes_a_precision_within_the_budget(data):
    found = json.loads(run("search", "tests.models:Chain", "--data", data, "--weight-bytes", "600").stdout)
    assert found["cost"]["weight_bytes"] <= 600
    assert "head" in found["precision"]["overrides"]


def test_search_counts_what_a_device_takes(data):
    paths = ("features.0", "features.5", "hidden", "head")
    with open("table.csv", "w", encoding="utf-8") as file:
        file.write("layer,weight_bits,activation_bits,cost\n")
        file.writelines(f"{path},{bits},8,{bits}\n" for path in paths for bits in (2, 8))
    arguments = ("search", "tests.models:Chain", "--data", data, "--latency-table", "table.csv", "--latency", "20")
    arguments = (*arguments, "--width", "int2", "--width", "int4", "--width", "int8")
    fixed = (*arguments, "--activation", "uint8", "--interpolate")
    assert json.loads(run(*fixed).stdout)["cost"]["latency"] <= 20
    result = run(*arguments)
    assert result.exit_code == 1
    assert "the latency table lacks entries" in result.stderr


def test_search_refuses_what_cannot_be_met(data):
    result = run("search", "tests.models:Chain", "--data", data, "--weight-bytes", "6")
    assert result.exit_code == 1
    assert "no widths fit weight_bytes=6" in result.stderr


def test_a_state_of_another_model_is_refused(data):
    torch.save({"weight": torch.ones(2)}, "wrong.pt")
    result = run("compare", "tests.models:Chain", "--state", "wrong.pt", "--data", data)
    assert result.exit_code == 1
    assert "needed the state_dict of the float model" in result.stderr
