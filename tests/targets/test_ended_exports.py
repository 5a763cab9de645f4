"""Exports that end at a random moment leave old files or new ones (more of them: `tests.targets.ended_exports`)."""

import signal

import pytest

from tests.targets.ended_exports import count_outcomes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the forks only write files


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_file_is_old_or_new_whatever_ends_the_export(number):
    outcomes = count_outcomes("onnxruntime", number, 50)
    assert outcomes["ended"] == 50
    assert outcomes["mixed"] == 0
    assert outcomes["tidy"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_folder_is_old_or_new_whatever_ends_the_export(number):
    """Few kills can come in the microseconds that the page speaks of."""
    outcomes = count_outcomes("deeploy", number, 50)
    assert outcomes["mixed"] <= (1 if number is signal.SIGKILL else 0)
    assert outcomes["tidy"] == 1


def test_a_few_ends_leave_nothing_beside():
    outcomes = count_outcomes("onnxruntime", signal.SIGINT, 3)
    assert (outcomes["ended"], outcomes["mixed"], outcomes["beside"], outcomes["tidy"]) == (3, 0, 0, 1)
