"""What tests of a real RoboTwin share: the reason to skip them, and measurements in RoboTwin's interpreter.

In: EVALKIT_ROBOTWIN_ROOT, EVALKIT_ROBOTWIN_PYTHON. Out: marks for a module's `pytestmark`; JSON values.
Read next: `tests/sim/robotwin_facts.py`, the functions that measure.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from envs.robotwin.bench import PYTHON_VARIABLE, ROOT_VARIABLE
from envs.robotwin.install import WORKER_ENVIRON
from tests.parity.findings import default_folder

REPOSITORY = Path(__file__).resolve().parents[2]

HEAD_VARIABLE = "EVALKIT_ROBOTWIN_HEAD_ROOT"

MPLIB_VARIABLE = "EVALKIT_ROBOTWIN_MPLIB_PYTHON"
"""An interpreter like that of EVALKIT_ROBOTWIN_PYTHON that also has mplib 0.2.1."""

LISTS = default_folder().parents[1] / "assets" / "robotwin_expert_seeds"
"""Folder of the published lists of vetted seeds."""

SUBSET_TASKS = (
    *("stack_blocks_two", "stack_blocks_three", "blocks_ranking_rgb", "blocks_ranking_size", "handover_block"),
    *("click_bell", "press_stapler", "move_stapler_pad", "place_mouse_pad", "move_playingcard_away"),
)
"""Tasks whose assets a subset of the download holds."""


def needs_robotwin(*further: str) -> list[pytest.MarkDecorator]:
    """Return the marks of a module, or a test, that runs RoboTwin in its own interpreter.

    Args:
        further: Environment variables that it needs, too.
    """
    absent = [name for name in (ROOT_VARIABLE, PYTHON_VARIABLE, *further) if not os.environ.get(name)]
    reason = f"RoboTwin is not here: {', '.join(absent)} not set (docs/robotwin.md)"
    return [pytest.mark.sim, pytest.mark.skipif(bool(absent), reason=reason)]


def needs_vetted_lists() -> list[pytest.MarkDecorator]:
    """Return the marks of a module, or a test, that runs RoboTwin on the published lists of vetted seeds."""
    reason = f"there are no vetted seeds at {LISTS}"
    return [*needs_robotwin(), pytest.mark.skipif(not LISTS.is_dir(), reason=reason)]


def root() -> Path:
    """Return the checkout that tests run in."""
    return Path(os.environ[ROOT_VARIABLE])


def measured(
    function: str,
    *arguments: Any,
    timeout_s: float = 280,
    environ: dict[str, str] | None = None,
    module: str = "robotwin_facts",
    python: str = PYTHON_VARIABLE,
) -> Any:
    """Return what a function of `robotwin_facts.py`, or of another module, measures in RoboTwin's interpreter."""
    done = subprocess.run(
        [os.environ[python], "-m", f"tests.sim.{module}", function, json.dumps(arguments, default=str)],
        cwd=REPOSITORY,
        env={**os.environ, **WORKER_ENVIRON, "PYTHONPATH": str(REPOSITORY), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
