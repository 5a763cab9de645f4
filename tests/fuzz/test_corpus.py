"""Every failure that was ever found is lossless now, or refused clearly; one that is open says so."""

import pytest

from tests.fuzz.case import load
from tests.fuzz.corpus import corpus_files
from tests.fuzz.outcome import LOSSLESS, REFUSED
from tests.fuzz.run_one import run_one


@pytest.mark.parametrize("path", corpus_files(), ids=lambda path: path.stem)
def test_a_case_of_the_corpus_is_lossless_or_refused(path, request):
    case = load(path)
    if case.open_finding:
        request.node.add_marker(pytest.mark.xfail(reason=case.open_finding, strict=case.is_strict))
    outcome = run_one(case)
    assert outcome.kind in (LOSSLESS, REFUSED), f"{outcome.site}: {outcome.message}"
