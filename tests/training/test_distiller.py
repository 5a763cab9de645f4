"""Distillation: the formula, a teacher that stays as it is, and what is refused."""

import pytest
import torch
from torch import nn

import ana_fx
from tests.models import Chain, example


def test_loss_is_the_formula():
    teacher, x = nn.Linear(6, 4), torch.rand(5, 6)
    logits, task_loss = torch.randn(5, 4), torch.tensor(2.0)
    taught, found = (torch.softmax(each / 3.0, 1) for each in (teacher(x), logits))
    wanted = 0.3 * task_loss + 0.7 * 9.0 * (taught * (taught / found).log()).sum(1).mean()
    loss = ana_fx.Distiller(teacher, temperature=3.0, weight=0.7)(logits, x, task_loss)
    torch.testing.assert_close(loss, wanted)  # the same sums in another order


def test_teacher_that_agrees_leaves_the_share_of_the_task():
    teacher, x = nn.Linear(6, 4), torch.rand(5, 6)
    assert float(ana_fx.Distiller(teacher, weight=0.25)(teacher(x), x, torch.tensor(4.0)).detach()) == 3.0


def test_teacher_is_a_copy_in_eval_mode_that_never_learns():
    net = Chain().train()
    distiller, x = ana_fx.Distiller(net), example(Chain)
    before = net.eval()(x).detach()
    net.train()
    distiller(net(x), x, torch.zeros(())).backward()
    assert net.training
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    zero = torch.zeros(())
    assert torch.equal(distiller(before, x, zero), zero)


def test_several_inputs_reach_the_teacher():
    teacher, x, y = nn.Bilinear(3, 3, 2), torch.rand(4, 3), torch.rand(4, 3)
    assert torch.equal(ana_fx.Distiller(teacher)(teacher(x, y), (x, y), torch.zeros(())), torch.zeros(()))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"temperature": 0.0}, "temperature is positive, got 0.0"), ({"weight": 1.5}, r"weight lies in \[0, 1\]")],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ana_fx.Distiller(nn.Linear(2, 2), **options)


def test_teacher_of_another_shape_is_refused():
    distiller = ana_fx.Distiller(nn.Linear(6, 4))
    with pytest.raises(ValueError, match=r"the teacher gives \(5, 4\), the model \(5, 3\)"):
        distiller(torch.rand(5, 3), torch.rand(5, 6), torch.zeros(()))
