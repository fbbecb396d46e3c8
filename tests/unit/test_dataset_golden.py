"""Clips and statistics match the released loader's; skipped if its numbers are missing."""

import pytest

from tests.parity import xwam_data as parity
from tests.parity.findings import default_folder

FOLDER = default_folder()


def test_golden() -> None:
    absent = [file for file in parity.FILES if not (FOLDER / file).exists()]
    if absent:
        pytest.skip(f"no {absent[0]} in {FOLDER}; set EVALKIT_SHARED to the folder that holds golden/xwam")
    found = list(parity.comparisons(FOLDER))
    assert len(found) == 2 * 4 + 2 * (5 + 8)
    assert [finding.item for finding in found if not finding.passed] == []
