"""The scripted experts' words: how they turn goals into actions, and how they choose a grasp; no simulator.

In: made-up observations. Out: checks against numbers written down here.
Read next: `tests/sim/test_robosuite_experts.py`, where they solve tasks.
"""

import subprocess
import sys
from importlib import metadata
from typing import Any

import numpy as np
import pytest

from baselines.scripted.experts import YAW_LIMITS_RAD, _crowding, _nut_yaws
from baselines.scripted.motion import CLOSED, OPEN, Goal, Senses, action_towards, down, nearest_yaw, reach
from baselines.scripted.policy import ScriptedConfig, ScriptedPlugin
from envs.robosuite.bench import RobosuiteBench
from envs.robosuite.tasks import TASKS, env_spec
from evalkit.contracts.bound import BoundBench, BoundPolicy
from evalkit.contracts.errors import EvalkitError, SpecMismatch
from evalkit.contracts.geometry import quat_from_matrix
from evalkit.contracts.requests import EpisodeRequests
from evalkit.contracts.spec import check
from evalkit.contracts.types import Episode, Observation
from evalkit.store.plan import Plan, make_plan
from tests.doubles.bench import FakeBench


def make_observation(position_m: Any = (0.4, 0.0, 0.1), cube_m: Any = (0.5, 0.1, -0.1), yaw_rad: Any = 0.0) -> Any:
    proprio = np.zeros(16, np.float32)
    proprio[:8] = [*position_m, *quat_from_matrix(down(yaw_rad)), 1.0]
    return Observation(
        rgb=np.zeros((0, 16, 16, 3), np.uint8),
        depth=np.zeros((0, 16, 16), np.float32),
        intrinsics=np.zeros((0, 3, 3)),
        T_base_cam=np.zeros((0, 4, 4)),
        proprio=proprio,
        instruction="",
        privileged={"cube_pos_m": np.array(cube_m), "cube_quat_wxyz": np.array([1.0, 0.0, 0.0, 0.0])},
    )


def make_episode(index: Any, task: Any = "Lift") -> Any:
    return Episode(
        bench="robosuite",
        setting="default",
        protocol="p",
        task=task,
        index=index,
        seed=index,
        instruction="",
        max_steps=200,
    )


def test_action_is_the_way_to_go_in_units_of_the_layout() -> None:
    goal = Goal(position_m=np.array([0.41, -0.02, 0.1]), R_base_ee=down(0.1), gripper=CLOSED)
    action = action_towards(goal, Senses(make_observation()))
    np.testing.assert_allclose(action[:7], [0.2, -0.4, 0.0, 0.0, 0.0, 0.2, -1.0], atol=1e-5)
    assert not action[7:].any()
    assert action.dtype == np.float32


def test_far_goals_are_approached_straight_and_within_bounds() -> None:
    goal = Goal(position_m=np.array([0.6, 0.1, 0.1]), R_base_ee=down(3.0), gripper=OPEN)
    action = action_towards(goal, Senses(make_observation()))
    np.testing.assert_allclose(action[:3], [1.0, 0.5, 0.0], atol=1e-5)
    np.testing.assert_allclose(action[3:7], [0.0, 0.0, 1.0, 1.0], atol=1e-5)


def test_hand_that_points_down_opens_along_y() -> None:
    np.testing.assert_allclose(down(0.0)[:, 2], [0, 0, -1])
    np.testing.assert_allclose(down(0.0)[:, 0], [0, 1, 0])
    np.testing.assert_allclose(down(np.pi / 2)[:, 0], [-1, 0, 0], atol=1e-12)


@pytest.mark.parametrize(("yaw", "expected"), [(0.2, 0.2), (1.5, 1.5 - np.pi / 2), (-3.0, np.pi - 3.0), (0.0, 0.0)])
def test_a_square_looks_the_same_every_quarter_turn(yaw: float, expected: float) -> None:
    assert nearest_yaw(yaw, 0.0, np.pi / 2) == pytest.approx(expected)


def test_reach_gives_up_and_stops_where_it_is() -> None:
    senses = Senses(make_observation())
    here = Goal(position_m=senses.position_m, R_base_ee=senses.R_base_ee, gripper=OPEN)
    away = Goal(position_m=senses.position_m + 1.0, R_base_ee=senses.R_base_ee, gripper=OPEN)
    assert len(list(reach(senses, lambda: here, within_m=0.01))) == 0
    assert len(list(reach(senses, lambda: away, within_m=0.01, max_steps=7))) == 7


def test_fingers_avoid_a_neighbour() -> None:
    aside, ahead = np.array([0.0, 0.06]), np.array([0.06, 0.0])
    assert _crowding(0.0, aside) == pytest.approx(0.04)
    assert _crowding(0.0, ahead) == 0.0
    assert _crowding(np.pi / 2, ahead) == pytest.approx(0.04)


@pytest.mark.parametrize("yaw", np.linspace(-np.pi, np.pi, 61))
def test_nut_can_be_placed_from_any_yaw(yaw: float) -> None:
    grasp, place = _nut_yaws(yaw)
    assert all(YAW_LIMITS_RAD[0] < value < YAW_LIMITS_RAD[1] for value in (grasp, place))
    assert np.sin(grasp - yaw) == pytest.approx(0.0, abs=1e-9)  # along the handle, either way
    nut_at_peg = yaw + place - grasp
    assert np.sin(2 * nut_at_peg) == pytest.approx(0.0, abs=1e-9)  # square on square
    assert np.cos(nut_at_peg) < 0.5  # the handle is not beyond the peg


def test_episodes_do_not_mix() -> None:
    env, plugin = env_spec("Lift", image_hw_px=(128, 128)), ScriptedPlugin()
    seen = {0: [(0.4, 0.0, 0.1), (0.42, 0.02, 0.1)], 1: [(0.3, 0.1, 0.2), (0.35, 0.1, 0.1)]}

    def run(order: Any) -> Any:
        policy, actions = plugin.make(ScriptedConfig()), {}
        requests = {index: EpisodeRequests(make_episode(index), policy.spec) for index in seen}
        for index in seen:
            requests[index].reset(policy, env)
        for index, step in order:
            request = requests[index].request(make_observation(seen[index][step]), chunk_idx=step, step_idx=step)
            actions[index, step] = policy.infer([request])[0].actions.tobytes()
        return actions

    assert run([(0, 0), (0, 1), (1, 0), (1, 1)]) == run([(1, 0), (0, 0), (1, 1), (0, 1)])


def test_reset_starts_the_expert_anew() -> None:
    env, policy = env_spec("Lift", image_hw_px=(128, 128)), ScriptedPlugin().make(ScriptedConfig())
    observation = make_observation((0.5, 0.1, -0.1))
    gripper = []
    requests = EpisodeRequests(make_episode(0), policy.spec)
    requests.reset(policy, env)
    for step_idx in range(60):
        request = requests.request(observation, chunk_idx=step_idx, step_idx=step_idx)
        gripper.append(policy.infer([request])[0].actions[0, 6])
    requests.reset(policy, env)
    assert policy.infer([request])[0].actions[0, 6] == gripper[0] == OPEN


def test_tasks_without_an_expert_are_named() -> None:
    plugin, env = ScriptedPlugin(), env_spec("TwoArmLift", image_hw_px=(128, 128))
    with pytest.raises(SpecMismatch, match=r"the policy supports only .* robosuite/Lift"):
        check(env, plugin.spec(ScriptedConfig()))
    with pytest.raises(EvalkitError, match=r"no scripted expert for task 'TwoArmLift'.*choose among Lift"):
        plugin.make(ScriptedConfig()).reset("id", env)


def plan_scripted(bench: Any) -> Plan:
    policy = BoundPolicy(plugin=ScriptedPlugin(), config=ScriptedConfig())
    return make_plan(
        BoundBench(plugin=bench, config=bench.config_type()), policy, tasks=[bench.tasks[0]], num_episodes=1
    )


def register_experts(monkeypatch: pytest.MonkeyPatch, *entries: tuple[str, str]) -> None:
    group, installed = "evalkit.experts", metadata.entry_points
    more = [metadata.EntryPoint(name, target, group) for name, target in entries]
    monkeypatch.setattr(metadata, "entry_points", lambda group: [*more, *installed(group=group)])


def test_a_plan_ignores_experts_of_other_benches(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = plan_scripted(RobosuiteBench())
    register_experts(
        monkeypatch,
        ("another", "baselines.scripted.experts:RobosuiteExperts"),
        ("broken", "no_such_module:Experts"),
    )
    assert plan_scripted(RobosuiteBench()).to_bytes() == alone.to_bytes()
    assert alone.policy.provenance["experts"].startswith("robosuite: Lift, ")
    assert ScriptedPlugin().provenance(ScriptedConfig())["experts"].startswith("another: Lift, ")
    assert "broken" not in ScriptedPlugin().provenance(ScriptedConfig())["experts"]


def test_a_plan_names_broken_experts_of_its_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EvalkitError, match="Bench 'fake' has no experts"):
        plan_scripted(FakeBench())
    register_experts(monkeypatch, ("fake", "no_such_module:Experts"))
    with pytest.raises(EvalkitError, match=r"'fake' .* cannot be imported: ModuleNotFoundError: No module named"):
        plan_scripted(FakeBench())


@pytest.mark.parametrize("task", [task for task in TASKS if not task.startswith("TwoArm")])
def test_it_fits_every_task_with_one_arm(task: str) -> None:
    check(env_spec(task, image_hw_px=(128, 128)), ScriptedPlugin().spec(ScriptedConfig()))


def test_importing_the_baselines_loads_no_framework() -> None:
    modules = "{'torch', 'mujoco', 'robosuite', 'gymnasium', 'scipy'}"
    code = f"import sys, baselines.floors, baselines.scripted.policy; print(sorted({modules} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
