"""X-WAM matches the released code's numbers; skipped where they are not at hand."""

import pytest
import torch

from tests.parity import xwam as parity

FOLDER = parity.default_folder()


@pytest.mark.parametrize("item", parity.ITEMS)
def test_golden(item):
    compare, files = parity.ITEMS[item]
    absent = [file for file in files if not (FOLDER / file).exists()]
    if absent:
        pytest.skip(f"no {absent[0]} in {FOLDER}; set EVALKIT_SHARED to the folder that holds golden/xwam")
    with torch.inference_mode():
        failed = [finding for finding in compare(FOLDER) if not finding.passed]
    assert not failed


def test_a_folder_without_files_fails(tmp_path, capsys):
    assert parity.main(tmp_path) == 1
    assert "ABSENT" in capsys.readouterr().out
