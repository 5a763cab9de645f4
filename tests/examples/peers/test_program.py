"""Every method is trained, exported and run on the same data; what is done is not done again."""

import importlib

import pytest
import torch

from examples.networks import VGG8
from examples.paper.store import Store
from examples.peers.method import PRECISIONS, FloatFile, ends_of
from examples.peers.methods import METHODS
from examples.peers.plain import Plain
from examples.peers.run import Comparison
from tests.examples.small_data import write_archive

OWN = "ana_fx,ana_fx-taught,ana_fx-annealed,ana_fx-annealed-late,lsq,ste"


@pytest.fixture
def program():
    pytest.importorskip("typer", reason="the program needs typer")
    return importlib.import_module("examples.peers.__main__")


def run(program, tmp_path, methods, precisions, seeds=1):
    from typer.testing import CliRunner

    data = tmp_path / "images.npz"
    arguments = ["run", "--data", str(data), "--width", "32", "--start-epochs", "1", "--epochs", "2"]
    arguments += ["--batch-size", "5", "--seeds", str(seeds), "--methods", methods, "--precisions", precisions]
    result = CliRunner().invoke(program.app, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    return result.stdout, Store(tmp_path / "out" / "results.sqlite")


def test_all_methods_of_this_repository_ship_what_they_validate(program, tmp_path):
    write_archive(tmp_path / "images.npz")
    report, store = run(program, tmp_path, OWN, "ternary,all-ternary")
    trials = store.finished()
    assert len(trials) == 1 + 6 + 4  # float; plain methods have no all-ternary
    for trial in trials[1:]:
        if trial.settings["method"].startswith("ana_fx"):
            assert trial.result["changed"] == 0
            assert trial.result["deployed"] == trial.result["trained"]
    assert "| ternary | ana_fx | 1 |" in report
    assert "0 of 20" in report


def test_another_seed_adds_to_what_is_there(program, tmp_path, monkeypatch):
    write_archive(tmp_path / "images.npz")
    run(program, tmp_path, "ste", "int4")
    prepared = []
    original = Plain.prepare
    monkeypatch.setattr(Plain, "prepare", lambda self, *rest: prepared.append(1) or original(self, *rest))
    report, store = run(program, tmp_path, "ste", "int4", seeds=2)
    assert len(prepared) == 1
    assert len(store.finished(method="ste")) == 2
    assert "| int4 | ste | 2 |" in report


def candidate(name, widths="ternary"):
    net = VGG8(32)
    images = torch.rand(6, 3, 32, 32)
    return net, images, METHODS[name]().prepare(net, images, PRECISIONS[widths], 10)


@pytest.mark.parametrize("widths", ["int8", "int4", "ternary"])
@pytest.mark.parametrize("name", ["lsq", "ste"])
def test_plain_methods_have_the_levels_that_are_asked_for(name, widths):
    net, images, found = candidate(name, widths)
    found.net(images).sum().backward()
    ends, wanted = ends_of(net), PRECISIONS[widths]
    assert ends == {"features.conv1.conv", "classifier.head"}
    for path, module in found.net.eval()[1].named_modules():
        if hasattr(module, "parametrizations"):
            step = module.parametrizations.weight[0].step
            levels = (module.weight.flatten(1) / step[:, None]).round().abs().max()
            assert levels <= 2 ** ((wanted.ends if path in ends else wanted.weight) - 1) - 1
            assert (step.grad is not None) == (name == "lsq")


def test_lsq_steps_have_the_gradient_of_the_paper():
    quantizer_of = candidate("lsq", "int4")[2].net[0]  # of the image: 0 … 255
    x = torch.tensor([[-1.0, 0.3, 0.7, 400.0]])
    quantizer_of.step.data.fill_(1.0)
    quantizer_of.train()(x).sum().backward()
    inside = [(round(v) - v) for v in (0.3, 0.7)]
    wanted = (sum(inside) + 0 + 255) / (4 * 255) ** 0.5  # Esser et al. 2020, eqs. 3 and section 2.2
    torch.testing.assert_close(quantizer_of.step.grad, torch.tensor([wanted]))


@pytest.mark.parametrize("name", [pytest.param("brevitas", marks=pytest.mark.extra("peers", "brevitas")), "torch.ao"])
@pytest.mark.filterwarnings("ignore")  # of their own making
def test_other_tools_train_and_export(name, tmp_path):
    _, images, found = candidate(name, "int8")
    before = [p.detach().clone() for p in found.net.parameters()]
    optimizer = torch.optim.SGD(found.net.parameters(), lr=0.1)
    found.net(images).square().sum().backward()
    optimizer.step()
    assert any(not torch.equal(p, old) for p, old in zip(found.net.parameters(), before, strict=True))
    found.finish([images])
    found.export(tmp_path / "n.onnx", images)
    assert FloatFile(tmp_path / "n.onnx")(images[:2]).shape == (2, 10)


def test_a_tool_that_cannot_export_is_reported(tmp_path, monkeypatch, program):
    write_archive(tmp_path / "images.npz")

    def refuse(self, path, example):
        raise ValueError("only eight bits\nand a long story")

    monkeypatch.setattr(type(candidate("ste")[2]), "export", refuse)
    report, store = run(program, tmp_path, "ste", "int4")
    assert store.finished(method="ste")[0].result["refusal"] == "ValueError: only eight bits"
    assert "| refused |" in report


def test_all_methods_start_from_the_same_float_network(tmp_path, monkeypatch, program):
    write_archive(tmp_path / "images.npz")
    starts = []
    original = Comparison.run

    def note(self, method, widths, seed, net, on_epoch):
        starts.append(net.state_dict()["classifier.head.weight"].clone())
        original(self, method, widths, seed, net, on_epoch)

    monkeypatch.setattr(Comparison, "run", note)
    run(program, tmp_path, "lsq,ste", "int4")
    run(program, tmp_path, "lsq,ana_fx", "int4")
    assert len(starts) == 4
    assert all(torch.equal(start, starts[0]) for start in starts)
