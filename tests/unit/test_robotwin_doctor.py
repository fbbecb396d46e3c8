"""What `evalkit doctor robotwin` finds: assets by content, packages, planners, rendering, and how each is helped.

In: a double of RoboTwin's checkout, made-up reports of scripts. Out: checks of findings.
Read next: `tests/sim/test_robotwin_doctor.py`, the scripts in a real interpreter.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envs.robotwin import assets as assets_module
from envs.robotwin import doctor, install, probe
from envs.robotwin.assets import ARTICULATED, OBJECTS, TEXTURES, scan
from envs.robotwin.bench import PYTHON_VARIABLE, ROOT_VARIABLE, RobotwinBench, RobotwinConfig
from envs.robotwin.install import Output, run_script
from envs.robotwin.protocols import PROTOCOLS
from evalkit.contracts.env import Finding
from tests.doubles.robotwin_checkout import ROBOT, write_checkout

GLB = b"glTF\x02\x00\x00\x00"
PNG = b"\x89PNG\r\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A double whose task click_bell names an object with two models, all of whose files are there."""
    root = write_checkout(tmp_path / "RoboTwin")
    (root / "envs/click_bell.py").write_text('bell = create_actor(modelname="050_bell", model_id=1)\n')
    for number in (0, 1):
        write(root / f"{OBJECTS}/050_bell/model_data{number}.json", b"{}")
        for kind in ("visual", "collision"):
            write(root / f"{OBJECTS}/050_bell/{kind}/base{number}.glb", GLB)
    for number in range(3):
        write(root / f"{TEXTURES}/{number}.png", PNG)
    return root


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def unmet(root: Path) -> dict[str, Finding]:
    return {f.what: f for f in doctor.judge_assets(scan(root), root, scripts="script") if not f.ok}


def test_a_whole_checkout_lacks_nothing(root: Path) -> None:
    found = scan(root)
    assert (found.objects, found.missing, found.textures) == (1, {}, 3)
    assert len(found.complete_tasks) == 50
    assert unmet(root) == {}


def test_a_mesh_is_looked_for_where_robotwin_does(root: Path) -> None:
    bell = root / OBJECTS / "050_bell"
    (bell / "collision/base1.glb").rename(bell / "base1.glb")
    assert scan(root).missing == {}, "the object's own folder takes the place of `collision`"
    (bell / "base1.glb").rename(bell / "collision/textured1.obj")
    assert scan(root).missing == {}, "an OBJ file takes the place of a GLB"
    (bell / "collision/textured1.obj").unlink()
    assert scan(root).missing == {"050_bell": f"{OBJECTS}/050_bell/collision/base1.glb"}
    assert "click_bell" not in scan(root).complete_tasks
    (finding,) = unmet(root).values()
    assert finding.found.startswith("0 of 1, 49 of 50 tasks have theirs; absent: assets/objects/050_bell/collision")
    assert "_download_assets.sh" in finding.remedy
    assert not finding.needed, "episodes of other tasks can run"


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"<html>not found</html>", b""])
def test_a_file_that_is_not_what_it_says_is_missing(root: Path, content: bytes) -> None:
    write(root / f"{OBJECTS}/050_bell/visual/base0.glb", content)
    assert scan(root).missing == {"050_bell": f"{OBJECTS}/050_bell/visual/base0.glb"}


def test_textures_must_be_numbered_without_a_gap(root: Path) -> None:
    """RoboTwin draws a number below the count of files, and opens `<number>.png`."""
    write(root / f"{TEXTURES}/.DS_Store", b"\0")
    assert unmet(root)["assets: background textures (for randomized)"].found == f"4 files in {TEXTURES}, but no 3.png"
    (root / f"{TEXTURES}/.DS_Store").unlink()
    write(root / f"{TEXTURES}/1.png", b"<html>")
    assert unmet(root)["assets: background textures (for randomized)"].found == f"{TEXTURES}/1.png is no PNG file"
    shutil.rmtree(root / "assets/background_texture")
    absent = unmet(root)["assets: background textures (for randomized)"]
    assert (absent.found, absent.needed) == (f"no files in {TEXTURES}", False)


def test_paths_of_another_machine_in_the_arms_files_are_named(root: Path) -> None:
    write(root / f"{ROBOT}/curobo_left.yml", b"robot_cfg:\n  urdf_path: /home/them/RoboTwin/assets/arm.urdf\n")
    write(root / f"{ROBOT}/curobo_left_tmp.yml", b"robot_cfg:\n  urdf_path: /no/such/path, a template\n")
    write(root / f"{ROBOT}/curobo_right.yml", f"urdf_path: {root}/{ROBOT}/urdf/two_arms.urdf\n".encode())
    finding = unmet(root)["assets: files of the arms"]
    assert finding.found == (
        f"{ROBOT}/curobo_left.yml names /home/them/RoboTwin/assets/arm.urdf, which is not on this machine"
    )
    assert "update_embodiment_config_path.py" in finding.remedy


def test_meshes_that_the_arms_description_names_must_be_there(root: Path) -> None:
    urdf = root / ROBOT / "urdf/two_arms.urdf"
    urdf.write_text(urdf.read_text().replace("</robot>", '<mesh filename="meshes/link6.STL"/></robot>'))
    assert "names 1 absent meshes, the first is meshes/link6.STL" in unmet(root)["assets: files of the arms"].found


def test_numbers_that_mean_two_models_are_named(root: Path) -> None:
    def faults() -> str:
        return unmet(root)["assets: numbers of models"].found

    write(root / f"{OBJECTS}/050_doorbell/points_info.json", b"{}")
    assert faults() == "050_bell and 050_doorbell have one number"
    shutil.rmtree(root / OBJECTS / "050_doorbell")
    write(root / f"{OBJECTS}/050_bell/model_data01.json", b"{}")
    assert faults() == "050_bell has model 1 twice"
    (root / f"{OBJECTS}/050_bell/model_data01.json").unlink()
    for model in ARTICULATED["060_kitchenpot"][1:]:
        write(root / f"{OBJECTS}/060_kitchenpot/{model}/mobility.urdf", b"<robot/>")
    assert faults() == "060_kitchenpot has 6 models instead of 7 (first difference: 100015)"
    write(root / f"{OBJECTS}/060_kitchenpot/100015/mobility.urdf", b"<robot/>")
    write(root / f"{OBJECTS}/060_kitchenpot/visual/base0.glb", GLB)
    assert "assets: numbers of models" not in unmet(root)


def test_robotwins_subset_of_assets_is_enough_for_ten_tasks() -> None:
    named = os.environ.get(ROOT_VARIABLE)
    if not named:
        pytest.skip(f"{ROOT_VARIABLE} names no checkout of RoboTwin")
    found = scan(Path(named))
    assert found.objects == 51
    assert not found.index_faults
    assert len(found.complete_tasks) >= 10
    assert {"stack_blocks_two", "handover_block", "blocks_ranking_rgb"} <= set(found.complete_tasks), "blocks alone"


REPORT: dict[str, Any] = {
    "python": "3.10.13",
    **dict.fromkeys(probe.PACKAGES, "1.0"),
    "sapien": "3.0.0b1",
    "errors": dict.fromkeys(probe.MODULES),
    "cuda": "NVIDIA H100",
}


def test_packages_are_named_with_their_command() -> None:
    packages, sapien = doctor.judge_packages({**REPORT, "toppra": None, "sapien": "3.0.3"}, "py")
    assert (packages.ok, packages.found) == (False, "absent: toppra")
    assert packages.remedy == "py -m pip install toppra"
    assert (sapien.ok, sapien.needed, sapien.found) == (False, False, "3.0.3"), "another version is a departure"
    errors = {**REPORT["errors"], "cv2": "ImportError: libGL.so.1: cannot open shared object file"}
    packages, _ = doctor.judge_packages({**REPORT, "errors": errors}, "py")
    assert not packages.ok
    assert "libgl1" in packages.remedy
    assert all(finding.ok for finding in doctor.judge_packages(REPORT, "py"))


def test_only_the_chosen_planner_is_needed(root: Path) -> None:
    def planners(chosen: str, **changes: Any) -> dict[str, Finding]:
        findings = doctor.judge_planners({**REPORT, **changes}, chosen, python="py", root=root)
        return {finding.what: finding for finding in findings}

    without_files = planners("curobo")["planner curobo"]
    assert without_files.found == f"no {ROBOT}/curobo_left.yml"
    for name in ("curobo_left.yml", "curobo_right.yml"):
        write(root / ROBOT / name, b"robot_cfg: {}\n")
    assert planners("curobo")["planner curobo"].found == "NVIDIA H100"
    found = planners("cpu", cuda=None)
    assert (found["planner curobo"].ok, found["planner curobo"].needed) == (False, False)
    assert found["planner curobo"].found == "no CUDA device"
    assert (found["planner cpu"].ok, found["planner cpu"].needed) == (True, True)
    errors = {**REPORT["errors"], "mplib": "ImportError: numpy.core.multiarray failed to import"}
    assert "numpy.core.multiarray" in planners("mplib", errors=errors)["planner mplib"].found


RENDERED: dict[str, Any] = {
    "device": {"name": "NVIDIA H100", "is_cuda": True},
    "seconds": 3.2,
    "depth_error_m": 1e-7,
    "is_red": True,
    "computed": None,
}


def test_the_rendering_device_is_named_with_its_kind() -> None:
    def found(name: str, is_cuda: bool | None) -> str:
        report = {**RENDERED, "device": {"name": name, "is_cuda": is_cuda}}
        return next(doctor.judge_rendering(Output(report, ""), "raster")).found

    assert found("NVIDIA H100", True) == "NVIDIA H100, a CUDA device, first image in 3 s"
    assert found("llvmpipe", False) == "llvmpipe, no CUDA device, first image in 3 s"
    assert found("unnamed", None) == "unnamed, of unknown kind, first image in 3 s"


def test_a_wrong_image_is_no_renderer() -> None:
    for wrong in ({"depth_error_m": 0.2}, {"is_red": False}):
        (finding,) = doctor.judge_rendering(Output({**RENDERED, **wrong}, ""), "raster")
        assert not finding.ok
        assert "lavapipe 25.0 or newer" in finding.remedy


def test_a_denoiser_that_fails_silently_is_named() -> None:
    line = "[2026-11-28 04:09:12.498] [svulkan2] [error] Failed to initialize denoiser"
    _, denoiser = doctor.judge_rendering(Output(RENDERED, f"starting\n{line}\n"), "rt")
    assert (denoiser.ok, denoiser.found) == (False, line)
    assert all(finding.ok for finding in doctor.judge_rendering(Output(RENDERED, "starting\n"), "rt"))


def test_a_renderer_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        run_script("render_probe.py", str(python), "rt", timeout_s=0.3)
    assert time.monotonic() - started < 10
    monkeypatch.setattr(doctor, "RENDER_S", 0.3)
    request = doctor.Request(
        root=None,
        python=str(python),
        protocol=PROTOCOLS["xwam"],
        planner="cpu",
        renderer="rt",
        manifest=tmp_path / "none.json",
    )
    (finding,) = doctor._rendering(request, cuda=None)
    assert (finding.ok, finding.found) == (False, "hangs for 0.3 s")


def test_a_gpu_that_cannot_render_and_compute_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With torch on the GPU the renderer of some machines hangs; without, it does not."""

    def render(python: str, *arguments: str) -> Output:
        if "cuda" in arguments:
            raise subprocess.TimeoutExpired(python, doctor.RENDER_S)
        return Output(RENDERED, "")

    monkeypatch.setattr(doctor, "_render", render)
    request = doctor.Request(
        root=None, python="py", protocol=PROTOCOLS["xwam"], planner="curobo", renderer="rt", manifest=tmp_path / "none"
    )
    *rendering, together = doctor._rendering(request, cuda="NVIDIA H100")
    assert all(finding.ok for finding in rendering)
    assert (together.ok, together.needed, together.found) == (False, True, "the renderer hangs for 180 s")
    assert "another GPU" in together.remedy
    *_, together = doctor._rendering(request, cuda=None)
    assert (together.ok, together.needed) == (False, False)


def test_a_script_says_its_last_line(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho hello\necho '{\"a\": 1}'\necho aside >&2\n")
    python.chmod(0o755)
    assert run_script("probe.py", str(python), "versions") == Output({"a": 1}, "aside\n")
    python.write_text("#!/bin/sh\necho 'no module' >&2\nexit 1\n")
    with pytest.raises(OSError, match="no module"):
        run_script("probe.py", str(python), "versions")
    python.write_text("#!/bin/sh\necho nothing\n")
    with pytest.raises(ValueError):
        run_script("probe.py", str(python), "versions")


def test_free_memory_says_how_many_workers_fit(tmp_path: Path) -> None:
    def found(text: str) -> Finding:
        (tmp_path / "meminfo").write_text(text)
        return doctor.memory(tmp_path / "meminfo")

    assert found("MemTotal: 99 kB\nMemAvailable:   12500000 kB\n").found == "12 GB: at most 3 workers"
    assert not found("MemAvailable: 2000000 kB\n").ok
    assert doctor.memory(tmp_path / "absent").found == "unknown"


def test_the_probe_reads_an_interpreter() -> None:
    report = run_script("probe.py", sys.executable, "versions").report
    assert report["numpy"] is not None
    assert report["nvidia_curobo"] is None
    assert install.versions("/nowhere/python") is None


def test_doctor_robotwin_on_the_command_line(root: Path) -> None:
    environ = {**os.environ, ROOT_VARIABLE: str(root), PYTHON_VARIABLE: "/nowhere/python", "COLUMNS": "300"}
    command = [sys.executable, "-m", "evalkit.cli", "doctor", "robotwin"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert "interpreter /nowhere/python" in done.stdout
    assert "changed: task code, settings, sentences" in done.stdout
    assert "evalkit vet --bench robotwin" in done.stdout
    done = subprocess.run([*command, "bench.robotwin.protocol=head"], env=environ, capture_output=True, text=True)
    assert "needs RoboTwin at cf47ab5 (August 2026), but" in done.stdout


def test_without_a_checkout_doctor_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    monkeypatch.setenv(PYTHON_VARIABLE, "/nowhere/python")
    first, *rest = RobotwinBench().examine(replace(RobotwinConfig(), manifest="/nowhere.json"))
    assert not first.ok
    assert "git checkout c3ddfa8" in first.remedy
    assert json.dumps([finding.found for finding in rest])


def test_a_web_page_is_no_mesh(tmp_path: Path) -> None:
    write(tmp_path / "a.STL", b"solid a")
    assert assets_module.is_whole(tmp_path / "a.STL")
    assert not assets_module.is_whole(tmp_path / "b.STL")
