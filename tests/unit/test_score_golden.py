"""Every golden value of the shared folder, by way of the parity check.

In: `../shared/golden/metrics`. Out: a verdict; skipped where it is absent.
Read next: `tests/parity/metrics.py`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("EVALKIT_SHARED", ROOT.parent / "shared")) / "golden/metrics"


@pytest.mark.skipif(not GOLDEN.exists(), reason="no golden values: ../shared/golden/metrics is absent")
def test_every_golden_value_is_matched():
    command = [sys.executable, str(ROOT / "tests/parity/metrics.py"), str(GOLDEN)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
