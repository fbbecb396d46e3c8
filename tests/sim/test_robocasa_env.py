"""The RoboCasa env against its own simulator: frames, units, cameras, repeatability, all 24 tasks.

In: RoboCasa v0.2 in an interpreter of its own, with placeholder art. Out: checks against its and MuJoCo's numbers.
Read next: `robocasa_facts.py`, which measures inside that interpreter.
"""

import hashlib
import json
import os
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.mujoco.views import choose_gl
from envs.robocasa.bench import PYTHON_VARIABLE, RobocasaBench, RobocasaConfig
from envs.robocasa.protocols import SCENES
from envs.robocasa.tasks import TASKS
from evalkit.contracts.errors import EpisodeFault, EvalkitError
from evalkit.contracts.worker.client import EnvWorker
from tests.doubles.simulators import ROBOCASA_TIMEOUTS, needs_robocasa

ROOT = Path(__file__).resolve().parents[2]
BENCH = RobocasaBench()


pytestmark = needs_robocasa()

HOLD = np.zeros((50, 14), np.float32)
MOVES = np.random.default_rng(0).uniform(-1, 1, (10, 14)).astype(np.float32)
MOVES[:, 7:] = 0


def measured(function: str, task: str, *, timeout_s: float = 280) -> Any:
    """Return what a function of `robocasa_facts.py` measures in RoboCasa's interpreter."""
    done = subprocess.run(
        [os.environ[PYTHON_VARIABLE], "-m", "tests.sim.robocasa_facts", function, task],
        cwd=ROOT,
        env={**os.environ, "MUJOCO_GL": choose_gl(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=["OpenDrawer", "CloseDoubleDoor", "TurnOnSinkFaucet"])
def facts(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What RoboCasa says of one task, measured in its interpreter."""
    return dict(measured("measure", request.param))


@pytest.mark.timeout(600)
def test_a_saved_kitchen_loads_again() -> None:
    """MuJoCo's saved XML, which robosuite's recorder keeps, in every kitchen."""
    sizes = measured("saved_kitchens", "PnPStoveToCounter", timeout_s=580)
    assert [kitchen for kitchen, *_ in sizes] == [kitchen for kitchen, _ in SCENES]
    assert all(original == loaded for _, original, loaded in sizes)


def test_the_kitchen_is_the_protocols(facts: dict[str, Any]) -> None:
    assert tuple(facts["kitchen"]) in SCENES
    assert facts["robot"] == ["PandaOmron", 12, 20]
    ours, theirs = facts["instruction"]
    assert ours == theirs != ""
    assert facts["solved"] is False


def test_cameras_are_robosuites(facts: dict[str, Any]) -> None:
    assert facts["cameras"]["camera_pose"] < 1e-9
    assert facts["cameras"]["intrinsics"] < 1e-9
    assert facts["cameras"]["fovy"] == [60.0, 60.0, 75.0]


def test_the_wrist_hangs_on_the_hand_as_the_spec_says(facts: dict[str, Any]) -> None:
    assert facts["cameras"]["hand_eye"] < 1e-6
    assert facts["cameras"]["wrist_from_proprio"] < 1e-6


def test_pictures_are_robosuites_to_the_pixel(facts: dict[str, Any]) -> None:
    assert facts["different_pixels"] == 0


def test_depth_is_what_rays_measure(facts: dict[str, Any]) -> None:
    """Colour has 4 samples; depth is that of pixel centres, but for edges."""
    assert facts["depth"]["median"] < 2e-5
    assert facts["depth"]["beyond_1cm"] < 0.02


def test_depth_of_planes_for_any_samples(facts: dict[str, Any]) -> None:
    """Counters and floor, in closed form."""
    for samples in ("0", "2", "4", "8"):
        seen = [plane for plane in facts["planes"][samples] if plane["share_frac"] > 0.02]
        assert seen, "no counter and no floor in view"
        assert all(plane["p95_mm"] < 0.1 for plane in seen)


def test_proprio_is_the_controllers(facts: dict[str, Any]) -> None:
    assert facts["base_at_reset"] < 1e-9
    assert facts["proprio"]["ee_pose"] < 1e-6
    assert facts["proprio"]["gripper"] < 1e-6
    assert facts["proprio"]["absent_arm"] == 0


def test_unit_actions_move_the_goal_by_5_cm_or_half_a_radian(facts: dict[str, Any]) -> None:
    assert facts["unit_actions"] < 1e-4


def test_gripper_opens_on_plus_one(facts: dict[str, Any]) -> None:
    closed, opened = facts["gripper"]
    assert closed < 0.05
    assert opened > 0.97


def test_faults_are_seen(facts: dict[str, Any]) -> None:
    assert "became unstable" in facts["blow_up"]
    assert facts["solved_at_reset"] == [True, False, True], "an error; or run, and a success after one step"
    assert "already open in this process" in facts["second_env"]
    assert facts["looking_changes_nothing"] is True


def test_state_fits_together(facts: dict[str, Any]) -> None:
    """A handle lies in front of its fixture, within its width; a door that is shut has its joint at 0."""
    state = {key: np.array(value) for key, value in facts["state"].items()}
    for handle in [key for key in state if key.endswith("handle_pos_m")]:
        away = np.abs(state[handle] - state["fixture_pos_m"])
        assert np.linalg.norm(away) < np.linalg.norm(state["fixture_half_size_m"]) + 1.0
    for name in [key for key in state if key.endswith("_axis")]:
        assert np.linalg.norm(state[name]) == pytest.approx(1.0)
    for key in [key for key in state if key.endswith("open_frac")]:
        assert 0 <= state[key][0] <= 1


def test_published_joints_move_the_parts_as_they_say(facts: dict[str, Any]) -> None:
    """A part moves about, or along, the axis that the state names, by as much as the joint does (Rodrigues)."""
    assert facts["joints_move_their_parts"] < 1e-6


def worker_for(task: Any, tmp_path: Path, **settings: Any) -> Any:
    config = RobocasaConfig(art="placeholder", image_px=64, **settings)
    spec = BENCH.env_spec(config, task=task, setting="default")
    launch = BENCH.launch(config, task=task, setting="default")
    return EnvWorker(launch, spec, timeouts=ROBOCASA_TIMEOUTS, log_path=tmp_path / "log").build()


def digest(observation: Any) -> Any:
    arrays = [observation.rgb, observation.depth, observation.T_base_cam, observation.proprio]
    arrays += [observation.privileged[key] for key in sorted(observation.privileged)]
    text = observation.instruction.encode()
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays) + text).hexdigest()


def played(worker: Any, episode: Any) -> Any:
    """Return hashes of the first and last observation, whether holding still solved it, and what the record holds."""
    start = worker.begin(episode, render=True)
    success = False
    for actions in (HOLD, MOVES):
        worker.send_actions(actions, render_at=[], render_last=actions is MOVES, render_success=False)
        outcome = worker.receive_outcome()
        success = success or (actions is HOLD and outcome.success)
    recorded = (start.scene, start.first_state_sha256, start.first_frame_sha256)
    return digest(start.observation), digest(outcome.last), success, recorded


def check_task(task: Any, tmp_path: Path) -> None:
    """Three seeds of 50 steps that hold still and 10 at random, and the first once more in another process, last."""
    config = RobocasaConfig(art="placeholder", image_px=64)
    first, second, third = BENCH.plan_episodes(config, task=task, setting="default", num_episodes=3, seed=0)
    with closing(worker_for(task, tmp_path)) as worker:
        one = played(worker, first)
    with closing(worker_for(task, tmp_path)) as worker:
        others = [played(worker, episode) for episode in (third, second)]
        again = played(worker, first)
    assert one == again, "the same episode in another process and after others"
    assert len({start for start, _, _, _ in (one, *others)}) == 3
    assert len({state for *_, (_, state, _) in (one, *others)}) == 3
    assert not any(solved for _, _, solved, _ in (one, *others)), "holding still solves nothing"
    scene = one[-1][0]
    assert (scene["layout"], scene["style"]) in SCENES
    assert scene["sentence"]


def test_one_task_begins_runs_and_repeats(tmp_path: Path) -> None:
    check_task("CoffeePressButton", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("task", [task for task in TASKS if task != "CoffeePressButton"])
def test_every_task_begins_runs_and_repeats(task: str, tmp_path: Path) -> None:
    check_task(task, tmp_path)


def test_cosmos_looks_at_224_pixels_after_settling_in_its_scene(tmp_path: Path) -> None:
    config = RobocasaConfig(art="placeholder", protocol="cosmos")
    spec = BENCH.env_spec(config, task="CloseDrawer", setting="default")
    launch = BENCH.launch(config, task="CloseDrawer", setting="default")
    episodes = BENCH.plan_episodes(config, task="CloseDrawer", setting="default", num_episodes=11, seed=195)
    worker = EnvWorker(launch, spec, timeouts=ROBOCASA_TIMEOUTS, log_path=tmp_path / "log").build()
    try:
        observation = worker.begin(episodes[10], render=True).observation
    finally:
        worker.close()
    assert observation.rgb.shape == (3, 224, 224, 3)


def test_a_folder_called_robocasa_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "robocasa").mkdir()
    monkeypatch.chdir(tmp_path)
    found = {finding.what: finding.ok for finding in BENCH.examine(RobocasaConfig())}
    assert found["robocasa can be imported"]
    worker_for("CloseDrawer", tmp_path).close()


def test_real_art_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    if all(f.ok for f in BENCH.examine(RobocasaConfig()) if f.what.startswith("art")):
        pytest.skip("RoboCasa's art is here")
    config = RobocasaConfig()
    spec = BENCH.env_spec(config, task="CloseDrawer", setting="default")
    launch = BENCH.launch(config, task="CloseDrawer", setting="default")
    with pytest.raises((EvalkitError, EpisodeFault), match=r"download_kitchen_assets.*robocasa\.art=placeholder"):
        EnvWorker(launch, spec, timeouts=ROBOCASA_TIMEOUTS, log_path=tmp_path / "log").build()
