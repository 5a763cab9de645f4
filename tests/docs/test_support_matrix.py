"""The support matrix is that of the targets."""

import runpy

from tests.docs.pages import DOCS

SCRIPT = runpy.run_path(str(DOCS / "code" / "support_matrix.py"))


def test_the_page_holds_the_table_that_the_targets_give():
    page = (DOCS / "support_matrix.md").read_text(encoding="utf-8")
    shown = page.partition(SCRIPT["BEGIN"])[2].partition(SCRIPT["END"])[0]
    assert shown.strip() == SCRIPT["matrix"](), "python docs/code/support_matrix.py writes it anew"


def test_a_target_says_yes_only_to_its_operators():
    header, _, *rows = SCRIPT["matrix"]().splitlines()
    column = header.split("|").index(" `dory` ")
    said = {row.split("|")[1].strip(" *"): row.split("|")[column].strip() for row in rows}
    assert (said["convolution"], said["softmax"]) == ("yes", "–")
