"""The examples in docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import ana_fx

MODULES = ["ana_fx", *(info.name for info in pkgutil.walk_packages(ana_fx.__path__, "ana_fx."))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0
