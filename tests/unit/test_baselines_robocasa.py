"""RoboCasa's experts against an ideal end effector and parts that follow it; no simulator.

In: made-up kitchens of one part. Out: checks on which way things turn, slide and are pressed.
Read next: `tests/sim/test_robocasa_experts.py`, where the experts meet the simulator.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from baselines.scripted.motion import Senses, down
from baselines.scripted.policy import ScriptedConfig, ScriptedPlugin
from baselines.scripted.robocasa import EXPERTS, about, knob_sides, lever_end, pointing_along, wrapped
from envs.robocasa.tasks import TASKS, env_spec
from evalkit.contracts import geometry
from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.requests import EpisodeRequests
from evalkit.contracts.spec import check
from evalkit.contracts.types import Episode, Observation

R_base_fixture = about(np.array([0.0, 0.0, 1.0]), -np.pi / 2)
"""A fixture that faces the robot: its y axis, which points into it, is the base's x axis."""


class Kitchen:
    """One hinge or slide, whose handle follows the gripper while closed fingers hold it, or any fingers push it."""

    def __init__(
        self,
        *,
        axis: Any,
        anchor_m: Any,
        handle_m: Any,
        half_m: Any,
        joint: Any = 0.0,
        name: Any = "handle",
        slides: Any = False,
        R_base_handle: Any = None,
    ) -> None:
        self.T_base_ee = geometry.transform(down(0.0), np.array([0.25, 0.0, 0.58]))
        self.open_frac, self.joint, self.name, self.slides = 1.0, joint, name, slides
        self.axis, self.anchor_m, self.half_m = (np.array(v, float) for v in (axis, anchor_m, half_m))
        self.R_base_handle = R_base_fixture if R_base_handle is None else R_base_handle
        self.handle_m = self._back(np.array(handle_m, float))
        self.instruction = ""

    def _back(self, point_m: Any) -> Any:
        return point_m if self.slides else self.anchor_m + about(self.axis, -self.joint) @ (point_m - self.anchor_m)

    def handle_pose(self) -> Any:
        if self.slides:
            return self.R_base_handle, self.handle_m + self.joint * self.axis
        R = about(self.axis, self.joint)
        return R @ self.R_base_handle, self.anchor_m + R @ (self.handle_m - self.anchor_m)

    def observe(self) -> Any:
        R, centre_m = self.handle_pose()
        quat = geometry.quat_from_matrix
        proprio = np.zeros(16, np.float32)
        proprio[:8] = [*self.T_base_ee[:3, 3], *quat(self.T_base_ee[:3, :3]), self.open_frac]
        box = {"pos_m": centre_m, "quat_wxyz": quat(R), "half_size_m": self.half_m}
        joint = {"joint": np.array([self.joint]), "axis": self.axis, "axis_pos_m": self.anchor_m}
        return Observation(
            rgb=np.zeros((0, 16, 16, 3), np.uint8),
            depth=np.zeros((0, 16, 16), np.float32),
            intrinsics=np.zeros((0, 3, 3)),
            T_base_cam=np.zeros((0, 4, 4)),
            proprio=proprio,
            instruction=self.instruction,
            privileged={f"{self.name}_{key}": value for key, value in (box | joint).items()}
            | {"fixture_quat_wxyz": quat(R_base_fixture), "fixture_pos_m": np.array([0.7, 0.0, 0.2])}
            | {"fixture_half_size_m": np.array([0.3, 0.28, 0.02])}
            | self.more(centre_m),
        )

    def more(self, centre_m: Any) -> Any:
        return {}

    def advance(self, action: Any) -> None:
        move_m, turn_rad = 0.5 * 0.05 * action[:3], 0.5 * 0.5 * action[3:6]
        angle = float(np.linalg.norm(turn_rad))
        R_turn = about(turn_rad / angle, angle) if angle > 1e-9 else np.eye(3)
        held = self.open_frac < 0.3 and np.linalg.norm(self.T_base_ee[:3, 3] - self.handle_pose()[1]) < 0.08
        if held and self.slides:
            self.joint += float(move_m @ self.axis)
        elif held:
            r = np.cross(self.axis, self.T_base_ee[:3, 3] - self.anchor_m)
            by_turn, by_move = float(turn_rad @ self.axis), float(move_m @ r) / max(float(r @ r), 1e-9)
            self.joint += by_move if np.linalg.norm(r) > 0.02 else by_turn
        self.T_base_ee[:3, 3] += move_m
        self.T_base_ee[:3, :3] = R_turn @ self.T_base_ee[:3, :3]
        self.open_frac = float(np.clip(self.open_frac + 0.2 * np.sign(action[6]), 0.0, 1.0))


def run(kitchen: Any, task: Any, until: Any, *, max_steps: Any = 300) -> Any:
    """Return how many steps it took."""
    policy = ScriptedPlugin().make(ScriptedConfig())
    episode = Episode(
        bench="robocasa",
        setting="default",
        protocol="p",
        task=task,
        index=0,
        seed=0,
        instruction=None,
        max_steps=max_steps,
    )
    requests = EpisodeRequests(episode, policy.spec)
    requests.reset(policy, env_spec(task, image_hw_px=(64, 64)))
    for step_idx in range(max_steps):
        if until():
            return step_idx
        request = requests.request(kitchen.observe(), chunk_idx=step_idx, step_idx=step_idx)
        (reply,) = policy.infer([request])
        assert np.abs(reply.actions).max() <= 1.0
        assert not reply.actions[0, 7:].any()
        kitchen.advance(reply.actions[0].astype(float))
    raise AssertionError(f"{task}: joint at {kitchen.joint:.3f} after {max_steps} steps")


class Faucet(Kitchen):
    """A lever that stands up next to the spout and tilts away from it."""

    def __init__(self, joint: Any) -> None:
        super().__init__(
            axis=[1, 0, 0],
            anchor_m=[0.7, -0.05, 0.31],
            handle_m=[0.7, -0.07, 0.36],
            half_m=[0.005, 0.005, 0.043],
            joint=joint,
        )

    def more(self, centre_m: Any) -> Any:
        return {"spout_axis_pos_m": np.array([0.7, 0.0, 0.45])}


def test_faucet_is_turned_on_and_off() -> None:
    for task, start, goal in (
        ("TurnOnSinkFaucet", 0.0, lambda q: q > 0.4),
        ("TurnOffSinkFaucet", 0.45, lambda q: q < 0.4),
    ):
        kitchen = Faucet(start)
        run(kitchen, task, lambda kitchen=kitchen, goal=goal: goal(kitchen.joint))


@pytest.mark.parametrize(("side", "sign"), [("right", 1), ("left", -1)])
@pytest.mark.parametrize(("end_z_m", "down_rad"), [(0.59, 0.3), (0.32, 1.0)], ids=["tall", "low"])
def test_spout_is_turned_to_the_side_that_is_named(side: str, sign: int, end_z_m: float, down_rad: float) -> None:
    kitchen = Kitchen(
        axis=[0, 0, 1],
        anchor_m=[0.7, 0.0, end_z_m - 0.14],
        handle_m=[0.6, 0.0, end_z_m],
        half_m=[0.015, 0.08, 0.015],
        name="spout",
    )
    kitchen.instruction = f"turn the sink spout to the {side}"
    run(kitchen, "TurnSinkSpout", lambda: sign * kitchen.joint > np.pi / 6)
    # RoboCasa: a positive angle is "right", and the end of the spout is then at the right of who stands before it
    assert sign * kitchen.handle_pose()[1][1] < 0
    # a wall cabinet is just above a tall spout: a gripper that points steeply down does not fit below it
    assert np.arcsin(-kitchen.T_base_ee[2, 2]) == pytest.approx(down_rad, abs=0.1)


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 0, 1]], ids=["front", "top"])
def test_knobs_are_turned_on_and_off(axis: list[int]) -> None:
    place = {"anchor_m": [0.5, 0.1, 0.3], "handle_m": [0.5, 0.1, 0.3], "name": "knob", "axis": axis}
    half_m = [0.008, 0.02, 0.02] if axis[0] else [0.008, 0.02, 0.004]
    kitchen = Kitchen(half_m=half_m, **place)
    run(kitchen, "TurnOnStove", lambda: kitchen.joint > 0.35)
    for start in (0.7, 2 * np.pi - 0.7):
        kitchen = Kitchen(half_m=half_m, joint=start, **place)
        run(kitchen, "TurnOffStove", lambda kitchen=kitchen: abs(wrapped(kitchen.joint)) < 0.35)


class Drawer(Kitchen):
    """Joint 0 is closed and -0.33 m open, as RoboCasa's."""

    def __init__(self, joint: Any) -> None:
        super().__init__(
            axis=[1, 0, 0],
            anchor_m=[0.43, -0.55, 0.08],
            handle_m=[0.4, -0.55, 0.08],
            half_m=[0.06, 0.01, 0.01],
            joint=joint,
            name="door_handle",
            slides=True,
        )

    def more(self, centre_m: Any) -> Any:
        return {"door_open_frac": np.array([-self.joint / 0.33])}


def test_drawers_are_drawn_out_and_pushed_home() -> None:
    opening, closing = Drawer(0.0), Drawer(-0.32)
    run(opening, "OpenDrawer", lambda: opening.joint < -0.95 * 0.33)
    run(closing, "CloseDrawer", lambda: closing.joint > -0.05 * 0.33)


def test_button_is_pressed_from_its_front_and_left_alone() -> None:
    # RoboCasa's slanted coffee button: a flat cylinder whose face looks to the front and up
    R_base_button = R_base_fixture @ about(np.array([1.0, 0.0, 0.0]), 1.13)
    button_m, n = np.array([0.42, 0.0, 0.5]), R_base_button[:, 2]
    assert n[0] < 0 < n[2]
    kitchen = Kitchen(
        axis=[1, 0, 0],
        anchor_m=button_m,
        handle_m=button_m,
        half_m=[0.013, 0.013, 0.001],
        name="start_button",
        slides=True,
        R_base_handle=R_base_button,
    )
    kitchen.axis = np.zeros(3)  # it does not move
    on, path = [0.0], []
    kitchen.more = lambda centre_m: {"machine_on": np.array(on)}  # type: ignore[method-assign]

    def pressed_and_left() -> Any:
        off_m = kitchen.T_base_ee[:3, 3] - button_m
        path.append(float(off_m @ n))
        if np.linalg.norm(off_m) < 0.01:
            on[0] = 1.0
            assert np.linalg.norm(np.cross(off_m, n)) < 0.005  # along the normal, not from the side
        return bool(on[0]) and np.linalg.norm(off_m) > 0.15

    run(kitchen, "CoffeePressButton", pressed_and_left)
    assert min(path) > -0.01  # not through the machine


def test_a_lever_is_taken_at_the_end_that_is_far_from_its_axis() -> None:
    grip_m, tangent = lever_end(Senses(Faucet(0.0).observe()), "handle")
    np.testing.assert_allclose(grip_m, [0.7, -0.07, 0.388])
    np.testing.assert_allclose(tangent, np.array([0.0, -0.078, -0.02]) / np.hypot(0.078, 0.02), atol=1e-9)


def test_a_knob_is_taken_by_its_broad_sides() -> None:
    kitchen = Kitchen(
        axis=[1, 0, 0], anchor_m=[0.5, 0, 0], handle_m=[0.5, 0, 0], half_m=[0.02, 0.005, 0.01], name="knob"
    )
    _, normal = knob_sides(Senses(kitchen.observe()), "knob")
    np.testing.assert_allclose(np.abs(normal), [0, 0, 1], atol=1e-9)  # thinner along the axis, but there is no hold


def test_a_gripper_that_points_down_is_motions() -> None:
    R_base_ee = pointing_along(np.array([0.0, 0.0, -1.0]), np.array([0.0, 1.0, 0.3]))
    np.testing.assert_allclose(R_base_ee, down(0.0), atol=1e-12)


def test_about_is_the_rotation_vectors_inverse() -> None:
    rotvec = np.array([0.3, -1.1, 0.4])
    angle = float(np.linalg.norm(rotvec))
    np.testing.assert_allclose(geometry.rotvec_from_matrix(about(rotvec / angle, angle)), rotvec, atol=1e-12)


@pytest.mark.parametrize("task", list(EXPERTS))
def test_experts_are_of_tasks_that_exist(task: str) -> None:
    assert task in TASKS
    check(env_spec(task, image_hw_px=(64, 64)), ScriptedPlugin().spec(ScriptedConfig()))


def test_the_bench_chooses_the_expert() -> None:
    env = replace(env_spec("OpenDrawer", image_hw_px=(64, 64)), env_id="robocasa/Lift")
    with pytest.raises(EvalkitError, match=r"no scripted expert for task 'Lift'.*choose among OpenDrawer, CloseDrawer"):
        ScriptedPlugin().make(ScriptedConfig()).reset("id", env)
