"""The golden files are what this tree makes; `make golden` rewrites them."""

from pathlib import Path

import pytest

from tests.golden.cases import CASES, FOLDER


@pytest.mark.parametrize("name", CASES)
def test_golden_file_is_unchanged(name: str, tmp_path: Path) -> None:
    assert CASES[name](tmp_path) == (FOLDER / name).read_text(), "explain the change and run `make golden`"


def test_each_golden_file_has_a_case() -> None:
    files = {path.name for path in FOLDER.iterdir() if path.suffix not in ("", ".py")}
    assert files == set(CASES)
