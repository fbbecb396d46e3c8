"""A minute of chaos; `make chaos` runs a quarter of an hour."""

from pathlib import Path

import pytest

from tests.chaos import run_chaos


@pytest.mark.slow
def test_disturbed_runs_have_the_records_of_calm_ones(tmp_path: Path) -> None:
    done = run_chaos(tmp_path, seconds=60)
    assert done["rounds"] >= 1
    assert done["sessions"] > done["rounds"], "the runner must have been ended and started again"
