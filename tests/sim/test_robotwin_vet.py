"""RoboTwin's seeds vetted for real: workers and kills change nothing, a plan runs on them, published lists agree.

In: EVALKIT_ROBOTWIN_ROOT and EVALKIT_ROBOTWIN_PYTHON; `../shared` for the published lists. Out: a verdict.
Read next: `tests/unit/test_vet.py`, the same with a double; `envs/robotwin/expert.py`, the expert.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evalkit.api import load_bench
from evalkit.contracts.manifest import read_manifest
from evalkit.vet.import_lists import import_lists
from evalkit.vet.lanes import Experts
from evalkit.vet.run import make_vet, run_vet
from evalkit.vet.verify import verify
from tests.doubles.robotwin import LISTS, needs_robotwin

pytestmark = [*needs_robotwin(), pytest.mark.timeout(1800)]

SETTINGS = {"planner": "cpu", "renderer": "raster", "shadows": "off"}
TASKS = ["click_bell", "move_playingcard_away"]


def experts(workers: int, setting: str = "clean") -> Experts:
    """Return RoboTwin's experts on a CPU."""
    return Experts(bench=load_bench("robotwin", **SETTINGS), setting=setting, workers=workers)


@pytest.fixture(scope="module")
def vetted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a manifest that one worker made."""
    path = tmp_path_factory.mktemp("vetted") / "robotwin.json"
    outcomes = run_vet(make_vet(experts(1), tasks=TASKS, episodes=2, out=path))
    assert [outcome.state for outcome in outcomes] == ["vetted", "vetted"]
    return path


def test_a_vetting_states_all_that_identifies_an_episode(vetted: Path) -> None:
    for entry in read_manifest(vetted).entries:
        assert entry.vettings[0].seed == 100_000
        assert entry.vetted_by["planner"] == "cpu"
        assert entry.vetted_by["robotwin"].startswith("c3ddfa8")
        assert not [fact for fact in entry.vetted_by.values() if fact.startswith("/") or ": /" in fact]
        for vetting in entry.accepted:
            assert vetting.instructions.keys() == {"seen", "unseen"}
            assert vetting.expert_steps is not None
            assert vetting.expert_steps > 100
            assert vetting.first_state_sha256 != vetting.first_frame_sha256


def test_three_workers_and_a_kill_give_the_same_file(vetted: Path, tmp_path: Path) -> None:
    path, journal = tmp_path / "robotwin.json", tmp_path / "robotwin.json.journal.jsonl"
    words = ["--bench", "robotwin", "--tasks", ",".join(TASKS), "--episodes", "2", "--out", str(path)]
    words += [f"bench.robotwin.{name}={value}" for name, value in SETTINGS.items()]
    command = [sys.executable, "-m", "evalkit.cli", "vet", *words, "--workers"]
    with subprocess.Popen([*command, "3"], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not journal.exists():
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    assert not path.exists()
    subprocess.run([*command, "2"], check=True, stdout=subprocess.DEVNULL)
    assert path.read_bytes() == vetted.read_bytes()


def test_a_plan_of_the_manifest_runs(vetted: Path, tmp_path: Path) -> None:
    words = ["--policy", "hold", "--bench", "robotwin", "--tasks", "click_bell", "--episodes", "1"]
    words += ["--out", str(tmp_path / "run"), f"bench.robotwin.manifest={vetted}", "bench.max_steps=2"]
    words += [f"bench.robotwin.{name}={value}" for name, value in SETTINGS.items()]
    words += ["run.video=false", "run.clips=false", "run.settle_steps=0"]
    done = subprocess.run([sys.executable, "-m", "evalkit.cli", "run", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    (vetting, *_) = next(e for e in read_manifest(vetted).entries if e.task == "click_bell").accepted
    record = (tmp_path / "run/episodes.jsonl").read_text()
    assert '"outcome": "failure"' in record
    assert vetting.instructions["unseen"] in record
    assert str(vetting.first_state_sha256) in record


@pytest.mark.skipif(not LISTS.is_dir(), reason="the published lists are not there")
def test_the_expert_here_agrees_with_a_published_list(tmp_path: Path) -> None:
    manifest = import_lists(load_bench("robotwin", **SETTINGS), [LISTS], tmp_path / "m.json")
    (bell,) = verify(manifest, experts(2), tasks=["click_bell"], episodes=3).agreements
    assert (bell.accepted, bell.accepted_here) == (3, 3)


def test_a_setting_without_its_assets_is_skipped(tmp_path: Path) -> None:
    call = make_vet(experts(1, "randomized"), tasks=["click_bell"], episodes=1, out=tmp_path / "m.json")
    (outcome,) = run_vet(call)
    if outcome.state == "vetted":
        pytest.skip("all assets of the setting are there")
    assert outcome.state == "skipped"
    assert "assets/" in str(outcome.reason)
    assert "is missing" in str(outcome.reason)
    assert not (tmp_path / "m.json").exists()
