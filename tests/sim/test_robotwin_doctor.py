"""`evalkit doctor robotwin` on this machine: its scripts in the interpreter that has RoboTwin's packages.

In: EVALKIT_ROBOTWIN_ROOT and EVALKIT_ROBOTWIN_PYTHON. Out: checks of findings, of a rendered image.
Read next: `tests/unit/test_robotwin_doctor.py`, how findings are judged.
"""

import os
from pathlib import Path

import pytest

from envs.robotwin import doctor
from envs.robotwin.bench import PYTHON_VARIABLE, ROOT_VARIABLE, RobotwinBench, RobotwinConfig
from envs.robotwin.install import WORKER_ENVIRON, run_script
from tests.doubles.robotwin import needs_robotwin

pytestmark = needs_robotwin()

PYTHON = os.environ.get(PYTHON_VARIABLE, "")


def test_a_tiny_scene_is_rendered_where_it_is() -> None:
    output = run_script("render_probe.py", PYTHON, "raster", timeout_s=200, environ=WORKER_ENVIRON)
    assert output.report["depth_error_m"] < 1e-6
    assert output.report["is_red"]
    assert output.report["device"]["name"]


def test_a_stand_in_configuration_lacks_only_assets() -> None:
    config = RobotwinConfig(planner="cpu", renderer="raster", shadows="off", manifest="/nowhere.json")
    findings = {finding.what: finding for finding in RobotwinBench().examine(config)}
    lacking = {what for what, finding in findings.items() if finding.needed and not finding.ok}
    assert {what for what in lacking if not what.startswith(("assets", "manifest"))} == set()
    assert findings["SAPIEN renders (raster)"].ok
    assert findings["planner cpu"].ok
    assert any(what.startswith("manifest") for what in lacking)


def test_a_denoiser_that_cannot_start_is_found_out() -> None:
    report = doctor._imports(PYTHON)
    if report["cuda"] is not None:
        pytest.skip("this machine has CUDA, on which the denoiser runs")
    findings = {finding.what: finding for finding in RobotwinBench().examine(RobotwinConfig())}
    denoiser = findings["denoiser of the ray tracer"]
    assert not denoiser.ok
    assert "Failed to initialize denoiser" in denoiser.found


def test_the_default_root_is_whole_but_for_its_assets() -> None:
    findings = {finding.what: finding for finding in RobotwinBench().examine(RobotwinConfig())}
    assert findings["checkout of RoboTwin at c3ddfa8"].found == str(Path(os.environ[ROOT_VARIABLE]).absolute())
    assert findings["task code, settings and sentences as committed"].ok
    assert findings["assets: numbers of models"].ok
    assert findings["assets: files of the arms"].ok
