"""What tests of real simulators share: the reason to skip them, and how long a kitchen may take.

In: what is installed here. Out: marks for a module's `pytestmark`.
Read next: `tests/sim/`.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from envs.mujoco.views import choose_gl
from envs.robocasa.bench import PYTHON_VARIABLE, RobocasaBench, RobocasaConfig
from envs.robocasa.protocols import PROTOCOLS
from evalkit.contracts.errors import EvalkitError
from evalkit.run.settings import RunSettings

ROOT = Path(__file__).resolve().parents[2]

ROBOCASA_TIMEOUTS = RunSettings(start_timeout_s=300, reset_timeout_s=300, chunk_timeout_s=300).timeouts


def why_no_robosuite() -> str:
    """Return why robosuite cannot render here; empty if it can."""
    if find_spec("robosuite") is None:
        return "robosuite is not installed"
    try:
        choose_gl()
    except EvalkitError as error:
        return str(error)
    return ""


def why_no_robocasa(*protocols: str) -> str:
    """Return why RoboCasa cannot run here as any of some protocols asks (default: all of them); empty if it can."""
    if not os.environ.get(PYTHON_VARIABLE):
        return f"no RoboCasa: {PYTHON_VARIABLE} names no interpreter that has it (docs/robocasa.md)"
    configs = [RobocasaConfig(protocol=protocol, art="placeholder") for protocol in protocols or tuple(PROTOCOLS)]
    lacking = [[f for f in RobocasaBench().examine(config) if f.needed and not f.ok] for config in configs]
    return "" if [] in lacking else f"RoboCasa is not complete: {lacking[0][0].what}: {lacking[0][0].remedy}"


def needs_robosuite() -> list[pytest.MarkDecorator]:
    """Return the marks of a module that renders robosuite."""
    reason = why_no_robosuite()
    return [pytest.mark.sim, pytest.mark.skipif(bool(reason), reason=reason)]


def needs_robocasa() -> list[pytest.MarkDecorator]:
    """Return the marks of a module that runs RoboCasa in its own interpreter."""
    reason = why_no_robocasa()
    return [pytest.mark.sim, pytest.mark.skipif(bool(reason), reason=reason)]
