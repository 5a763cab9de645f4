"""Small networks on one thread: two would mostly wait for each other."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread(same_start: None) -> None:
    torch.set_num_threads(1)
