"""A renderer whose library is missing is named with its remedy, before robosuite is imported.

In: MUJOCO_GL, libraries that are there or not. Out: a verdict on the sentences.
Read next: `envs/mujoco/views.py`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from envs.mujoco import views
from evalkit.contracts.errors import EnvRaised, EvalkitError

ROOT = Path(__file__).resolve().parents[2]


def test_a_missing_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setitem(views._GL_LIBRARIES, "osmesa", "libNowhereMesa.so.8")
    monkeypatch.setitem(views._GL_LIBRARIES, "egl", "libc.so.6")
    with pytest.raises(EvalkitError) as caught:
        views.check_gl()
    assert str(caught.value) == (
        "MUJOCO_GL=osmesa needs libNowhereMesa.so.8, which is not installed: apt-get install libosmesa6, or set "
        "MUJOCO_GL=egl, which is there"
    )
    monkeypatch.setitem(views._GL_LIBRARIES, "egl", "libNowhereEGL.so.1")
    with pytest.raises(EvalkitError, match=r"apt-get install libosmesa6$"):
        views.check_gl()
    with pytest.raises(EvalkitError, match=r"libosmesa6$"):
        views.ViewRenderer(image_hw_px=(16, 16))


@pytest.mark.parametrize("name", ["egl", "glfw", "disabled"])
def test_other_renderers_pass(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("MUJOCO_GL", name)
    monkeypatch.setitem(views._GL_LIBRARIES, "egl", "libc.so.6")
    views.check_gl()


@pytest.mark.skipif(views._has_library("osmesa"), reason="libOSMesa is installed")
def test_a_recording_without_the_library_is_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "evalkit.cli", "record", str(tmp_path / "data"), "Lift=1"]
    environ = {**os.environ, "MUJOCO_GL": "osmesa"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "MUJOCO_GL=osmesa needs libOSMesa.so.8, which is not installed: apt-get install libosmesa6" in line
    assert "glGetError" not in done.stdout + done.stderr


def test_a_sentence_of_the_env_is_said_without_its_type() -> None:
    assert str(EnvRaised("robosuite/Lift", kind="EvalkitError", text="install x")) == "robosuite/Lift: install x"
    assert str(EnvRaised("robosuite/Lift", kind="KeyError", text="'x'")) == "robosuite/Lift: KeyError: 'x'"
