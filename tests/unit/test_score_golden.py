"""Every golden value of the shared folder, by way of the parity check; and what that check does with other folders.

In: `../shared/golden/metrics`, or a folder made here. Out: a verdict; skipped where golden values are absent.
Read next: `tests/parity/metrics.py`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.parity import metrics

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("EVALKIT_SHARED", ROOT.parent / "shared")) / "golden/metrics"


@pytest.mark.skipif(not GOLDEN.exists(), reason="no golden values: ../shared/golden/metrics is absent")
def test_every_golden_value_is_matched() -> None:
    command = [sys.executable, str(ROOT / "tests/parity/metrics.py"), str(GOLDEN)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout


@pytest.fixture
def other(tmp_path: Path) -> Any:
    """Return a folder of depth alone: another name and size, one frame without a valid prediction, values by numpy."""
    true = np.random.default_rng(5).uniform(0.5, 3.0, (2, 2, 9, 14)).astype(np.float32)
    pred = true * np.float32(1.1)
    pred[0, 1] = np.nan
    np.savez(tmp_path / "mine.npz", rgb_gt=np.zeros((2, 2, 9, 14, 3), np.uint8), depth_gt=true, depth_pred=pred)
    keys = {
        "depth/max10/n_valid/v0_t0": true[0, 0].size,
        "depth/max10/absrel/v0_t0": float(np.mean(np.abs(pred[0, 0].astype(float) - true[0, 0]) / true[0, 0])),
        "depth/max10/absrel/v0_t1": "nan",
        "depth/max10/absrel/mean_of_frames": "nan",
        "depth/max0.1/affine_disparity_scale_shift": ["nan", "nan"],
    }

    def write(**more: Any) -> Any:
        content = {"tolerances": {"depth": 1e-6}, "cases": {"mine": {**keys, **more}}}
        (tmp_path / "expected.json").write_text(json.dumps(content))
        return tmp_path

    return write


def test_other_keys_sizes_and_empty_frames_are_checked(other: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert metrics.main(other()) == 0
    assert "0 failed" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [{"depth/max10/delta1/v0_t0": 0.9}, {"depth/max10/absrel/v0_t0": "nan"}, {"ab/c": 1}])
def test_a_value_that_is_off_or_unknown_fails(other: Any, capsys: pytest.CaptureFixture[str], wrong: Any) -> None:
    assert metrics.main(other(**wrong)) == 1
    assert "FAIL" in capsys.readouterr().out
