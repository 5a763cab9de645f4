"""Random models are lossless in every form, or refused with a way out."""

import os

import pytest

from tests.fuzz.campaign import run_campaign, run_seed
from tests.fuzz.corpus import CORPUS, open_sites

QUICK = range(60)


@pytest.fixture(scope="module")
def known():
    return open_sites()


@pytest.mark.parametrize("seed", QUICK)
def test_a_random_model_is_lossless_or_refused(seed, known):
    outcome = run_seed(seed)
    assert not outcome.failed or outcome.same in known, f"{outcome.kind} {outcome.site}: {outcome.message}"


@pytest.mark.slow
def test_two_thousand_random_models_are_lossless_or_refused(tmp_path):
    processes = os.cpu_count() or 1
    found = run_campaign(
        first_seed=len(QUICK), most_graphs=2000, num_processes=processes, corpus=CORPUS, found_in=tmp_path
    )
    texts = [each["message"] for each in found.new]
    assert found.num_graphs > 1900
    assert not texts, f"{found.line()}: {found.new}"
