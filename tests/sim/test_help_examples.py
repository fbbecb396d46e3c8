"""The examples of evalkit's help texts, run in their order in one folder, with few and short episodes.

In: docstrings of verbs. Out: exit codes.
Read next: `tests/unit/test_examples.py`, which checks the examples that need a GPU, other packages or hours.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.examples import Example, examples_in_help
from tests.doubles.simulators import needs_robosuite

pytestmark = [*needs_robosuite(), pytest.mark.slow]

ELSEWHERE = ("robocasa", "cuda", "--rrd", "--published", "low_dim.hdf5", "score folders", "score dataset data/")
"""What a machine without a GPU, RoboCasa, rerun and the files of a user has not."""

BY_VERB = {
    "run": ["--episodes", "1", "bench.max_steps=32"],
    "record": ["--no-disturbances"],
    "score run": ["--workers", "1"],
    "score dataset": ["--workers", "1"],
}
"""Arguments that make an example short."""


def shortened(example: Example) -> list[str]:
    """Return the words of an example with few and short episodes."""
    words = [re.sub(r"^(\w+)=\d+$", r"\1=1", word) for word in example.words]
    return [*example.verb.split(), *words, *BY_VERB.get(example.verb, [])]


@pytest.mark.timeout(1800)
def test_examples_run_one_after_another(tmp_path: Path) -> None:
    order = ["list", "plan", "check pair", "check policy", "check bench", "run"]
    order += ["score run", "score dataset", "report", "view"]
    examples = [e for e in examples_in_help() if e.program == "evalkit" and not any(x in str(e) for x in ELSEWHERE)]
    chosen = sorted((e for e in examples if e.verb in order), key=lambda e: order.index(e.verb))
    assert len(chosen) >= 14
    for example in chosen:
        done = subprocess.run(
            [sys.executable, "-m", "evalkit.cli", *shortened(example)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{example}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    "example",
    [e for e in examples_in_help() if e.verb == "record" and not any(x in str(e) for x in (*ELSEWHERE, "--policy"))],
    ids=str,
)
def test_examples_of_record_write_a_data_set(example: Example, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "evalkit.cli", *shortened(example)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("data/*/metadata.json"))
