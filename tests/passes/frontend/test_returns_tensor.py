"""What is known to give one tensor, without evaluating it."""

from __future__ import annotations

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ana_fx.passes.frontend.returns_tensor import is_in_place, is_tensor_function, is_tensor_module


@pytest.mark.parametrize(
    "target", [operator.add, operator.getitem, operator.itruediv, torch.relu, F.conv2d, torch.cat, "relu_", "view"]
)
def test_operations_of_torch_that_declare_one_tensor_give_one(target):
    assert is_tensor_function(target)


@pytest.mark.parametrize("target", [len, max, torch.split, torch.zeros_like, "size", "unbind", "new_zeros", "nothing"])
def test_what_may_give_something_else_is_not_taken_for_a_tensor(target):
    assert not is_tensor_function(target)


def test_a_function_of_the_user_is_not_taken_for_the_one_of_torch_with_its_name():
    def relu(x):
        return x, x

    assert not is_tensor_function(relu)


def test_a_pool_that_returns_indices_gives_two():
    assert is_tensor_module(nn.MaxPool2d(2))
    assert not is_tensor_module(nn.MaxPool2d(2, return_indices=True))
    assert not is_tensor_module(nn.LSTM(2, 2))


def test_methods_that_end_in_one_underscore_write_to_their_tensor():
    assert is_in_place("call_method", "add_")
    assert is_in_place("call_function", operator.iadd)
    assert not is_in_place("call_method", "__getitem__")
    assert not is_in_place("call_function", operator.add)
