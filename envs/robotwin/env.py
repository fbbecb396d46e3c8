"""One RoboTwin task as an env: begin, advance, observe, close. It runs in RoboTwin's own interpreter.

In: seeds, sentences, 14-number actions. Out: RGB-D, camera matrices, proprio.
Read next: `scene.py`, how an episode is built; `rendering.py`, which images are rendered; `planners/`, who moves arms.

The base frame is RoboTwin's world. Needs numpy, msgpack and scipy in addition to what RoboTwin needs, Python 3.10 or
later. The process has RoboTwin's root as its working directory and RoboTwin's `envs` under its own name; this package
is `evalkit_envs.robotwin` there.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from evalkit.contracts import geometry
from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.spec import EE_POSE_BASE, JOINT_POSITION, Arm
from evalkit.contracts.types import ARM_ACTION, ARM_PROPRIO, GRIPPER, PROPRIO_DIM, ROTVEC_RAD, TRANSLATION
from evalkit.contracts.worker.fingerprint import hash_arrays

from ..sapien.cameras import capture
from . import planners
from .asset_hashes import asset_hashes
from .checkout import Checkout, import_robotwin, robot_modules, stand_ins
from .dry import read_info
from .expert import run_expert, vet
from .instructions import SPLITS, Instructions
from .poses import measured_poses
from .protocols import FIRST_SEED
from .rendering import Decimate, Renderer, Rendering, as_observed, describe_hiding, observed_cameras
from .scene import Scenes, describe
from .state import read_state
from .tasks import ARMS, EXPERT_KEY, FRAME_STEPS, IMAGE_HW_PX, env_spec

SHORT_MOTION_RAD = 1e-4
"""toppra finds a motion along every longer line; below about 1e-5 rad, as RoboTwin asks it, it finds none, or one
without a sample."""


class RobotwinEnv:
    """One task; satisfies `evalkit.contracts.env.Env`. There is one per process.

    An action of `ee_pose_base` is one plan of both arms to absolute poses, from rest to rest; an arm whose plan fails
    holds for 50 physics steps. An action of `joint_position` is timed along the straight joint line. The goal is
    checked after each physics step; the first check that holds ends the action. After that, actions are executed to
    their end and the goal is checked there, so that a scene can settle.

    Args:
        task: Name of a task.
        setting: `clean` or `randomized`.
        root: Root of the checkout.
        layout: Action layout.
        planner: Name of a planner.
        renderer: See `Rendering`.
        shadows: See `Rendering`.
        decimate: See `Rendering`.
        expert: Whether to give the expert's poses as privileged state.
        split: Split whose templates must give the sentences of episodes; None for any.

    Raises:
        EvalkitError: If RoboTwin cannot be imported here.
        MissingAssets: If RoboTwin lacks a file that every scene needs.
    """

    def __init__(
        self,
        *,
        task: str,
        setting: str,
        root: str,
        layout: str,
        planner: str,
        renderer: Renderer,
        shadows: bool,
        decimate: Decimate,
        expert: bool = False,
        split: str | None = None,
    ) -> None:
        checkout = Checkout.at(root)
        if checkout.root.resolve() != Path.cwd():
            raise EvalkitError(f"RoboTwin needs its root {checkout.root} as working directory, not {Path.cwd()}.")
        rendering = Rendering(renderer=renderer, shadows=shadows, decimate=decimate)
        self.spec = env_spec(task, layout=layout, T_ee_cams=checkout.wrist_cameras(setting), expert=expert)
        self._scenes = Scenes(checkout, task=task, setting=setting, rendering=rendering)
        self._plans = planners.install(planner, *robot_modules())
        self._instructions = Instructions.read(checkout.description, task)
        self._ee_actions, self._planner = layout == EE_POSE_BASE, planner
        self._setting, self._expert = setting, expert
        self._splits = SPLITS if split is None else (split,)
        self._expert_motion: dict[str, np.ndarray] = {}
        self._expert_reason: str | None = None
        self._info: dict[str, str] = {}
        self._instruction = ""
        self._goal_met = False
        self._failed_plans, self._held_motions = dict.fromkeys(ARMS, 0), dict.fromkeys(ARMS, 0)
        self._images = 0
        self.about = {**rendering.describe(), "planner": planner, "stand_ins": ", ".join(stand_ins()) or "none"}
        self.about |= asset_hashes(checkout.root, task, randomized=setting == "randomized")
        if decimate != "none":
            self.about["hidden"] = describe_hiding(self._first_scene(), IMAGE_HW_PX)

    def _first_scene(self) -> Any:
        """Build the scene of the first seed that has one."""
        unstable: type[Exception] = import_robotwin("envs.utils.create_actor").UnStableError
        for seed in itertools.count(FIRST_SEED):
            with contextlib.suppress(unstable):
                return self._scenes.build(seed)

    def begin(self, *, seed: int, max_steps: int) -> bool:
        """Build the scene of this seed; return whether its goal is met already.

        With `expert=True` the expert plays in the scene first, and the scene is built once more.
        """
        if self._expert:
            run = run_expert(self._scenes, seed)
            self._expert_motion, self._expert_reason = {EXPERT_KEY: run.ee_world.ravel()}, run.reason
        scene = self._scenes.build(seed)
        scene.step_lim = None  # the harness counts steps; RoboTwin would ignore those of a settling scene
        self._info = read_info(scene)
        self._instruction, self._goal_met, self._images = "", False, 0
        self._failed_plans, self._held_motions = dict.fromkeys(ARMS, 0), dict.fromkeys(ARMS, 0)
        self._plans.clear()
        for arm in ARMS:
            self._count_failures(scene.robot, arm)
        return bool(scene.check_success())

    def vet(self, seed: int, instructions: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        """Return the expert's verdict on a seed; see `contracts.env.VettingEnv`.

        The hashes are those of the scene as `begin` leaves it, where a policy starts; not of that after the expert.

        Raises:
            RuntimeError: If the expert failed after a planner had run out of time, which depends on the machine.
        """

        def begin(seed: int) -> tuple[Mapping[str, str], str, str]:
            self.begin(seed=seed, max_steps=0)
            state_sha256 = hash_arrays(self.state())
            frame = self.observe(render=True)
            return self._info, state_sha256, hash_arrays({name: frame[name] for name in ("rgb", "depth")})

        self._plans.clear()
        vetting = vet(
            self._scenes, self._instructions, setting=self._setting, seed=seed, begin=begin, listed=instructions
        )
        if not vetting.accepted and self._plans.timed_out:
            raise RuntimeError(
                f"the expert failed ({vetting.reason}) after {self._plans.timed_out} plans ran out of time on this "
                f"machine: no verdict on seed {seed}; vet with fewer workers"
            )
        return vetting.to_json()

    def instruct(self, instruction: str) -> None:
        """Take the instruction of the episode.

        Raises:
            ValueError: If RoboTwin's templates of the planned split do not give this sentence for the scene's objects.
        """
        if not any(self._instructions.can_be_said(instruction, self._info, split) for split in self._splits):
            objects = ", ".join(f"{key}={value}" for key, value in self._info.items()) or "no named objects"
            raise ValueError(
                f"RoboTwin's {' and '.join(self._splits)} templates of {self.spec.env_id} do not give '{instruction}' "
                f"for a scene with {objects}: it is the sentence of another scene, split or commit of RoboTwin"
            )
        self._instruction = instruction

    @property
    def scene(self) -> dict[str, Any]:
        """What the seed drew, JSON values; with `expert=True` also whether the expert solved it."""
        drawn = describe(self._current, self._info)
        return {**drawn, "expert": self._expert_reason or "solved"} if self._expert else drawn

    def state(self) -> dict[str, np.ndarray]:
        """Return all that the seed decides; see `contracts.env.SceneEnv`."""
        return read_state(self._current)

    def counters(self) -> dict[str, int]:
        """Return what was counted in this episode."""
        counts = {f"failed_plans_{arm}": count for arm, count in self._failed_plans.items()}
        if self._ee_actions:
            plans = self._plans.as_dict()
            counts |= {f"{name}_plans": plans[name] for name in planners.COUNTED[self._planner]}
        else:
            counts |= {f"held_motions_{arm}": count for arm, count in self._held_motions.items()}
        return {**counts, "images": self._images}

    def advance(self, action: np.ndarray) -> bool:
        """Execute one action; return whether the goal is met."""
        scene, action = self._current, np.asarray(action, np.float64)
        numbers, kind = (ee_action(action), "ee") if self._ee_actions else (action, "qpos")
        if self._goal_met:
            return self._settle(numbers, kind)
        scene.take_action(numbers, kind)
        self._goal_met = bool(scene.eval_success)
        return self._goal_met

    def _settle(self, numbers: np.ndarray, kind: str) -> bool:
        """Execute one action to its end, at least for the time of one frame, and check the goal there."""
        scene = self._current
        scene.eval_success = False
        scene.stage_success_tag = False  # with it, three tasks would say that their goal is met for ever
        steps_before = scene.physics_steps
        with scene.goal_unchecked():
            scene.take_action(numbers, kind)
        for _ in range(FRAME_STEPS - (scene.physics_steps - steps_before)):
            scene.scene.step()
            scene._update_render()
        return bool(scene.check_success())

    def observe(self, *, render: bool) -> dict[str, Any]:
        """Return the fields of an `Observation`; with `render=False` V is 0 and nothing is rendered."""
        scene = self._current
        if render:
            with as_observed(scene):
                views = capture(observed_cameras(scene), image_hw_px=IMAGE_HW_PX)
        else:
            views = capture([], image_hw_px=IMAGE_HW_PX)
        self._images += len(views.rgb)
        return {
            "rgb": views.rgb,
            "depth": views.depth,
            "intrinsics": views.intrinsics,
            "T_base_cam": views.T_world_cam,
            "proprio": proprio(scene),
            "instruction": self._instruction,
            "privileged": {**self._expert_motion, **self._joints()},
        }

    def _joints(self) -> dict[str, np.ndarray]:
        return {JOINT_POSITION: joint_position(self._current)} if self.spec.action_layout == JOINT_POSITION else {}

    def close(self) -> None:
        """Free the simulator; calling it twice is fine."""
        self._scenes.close()

    @property
    def _current(self) -> Any:
        return self._scenes.current

    def _count_failures(self, robot: Any, arm: Arm) -> None:
        """Count the plans of an arm that fail: without a path, or without a timing of a joint line.

        A joint line that is too short to be timed is no failure: RoboTwin then holds the arm for 50 physics steps.
        """
        plan_path = getattr(robot, f"{arm}_plan_path")
        timing = getattr(robot, f"{arm}_mplib_planner")
        topp = timing.TOPP

        def counted_path(*args: Any, **kwargs: Any) -> Mapping[str, Any]:
            result: Mapping[str, Any] = plan_path(*args, **kwargs)
            self._failed_plans[arm] += result["status"] != "Success"
            return result

        def counted_timing(path: np.ndarray, *args: Any, **kwargs: Any) -> Any:
            try:
                timed = topp(path, *args, **kwargs)
            except Exception:
                is_short = np.abs(path - path[0]).max() < SHORT_MOTION_RAD
                (self._held_motions if is_short else self._failed_plans)[arm] += 1
                raise
            self._held_motions[arm] += len(timed[1]) == 0
            return timed

        setattr(robot, f"{arm}_plan_path", counted_path)
        timing.TOPP = counted_timing


def ee_action(action: np.ndarray) -> np.ndarray:
    """Return RoboTwin's 16 numbers, (xyz, quat wxyz, gripper) per arm, of an `ee_pose_base` action.

    Example:
        >>> ee_action(np.array([0.1, 0.2, 0.3, 0.0, 0.0, np.pi, 1.0] * 2)).round(6)[:8]
        array([0.1, 0.2, 0.3, 0. , 0. , 0. , 1. , 1. ])
    """
    numbers = np.zeros(PROPRIO_DIM)
    for arm in ARMS:
        move = action[ARM_ACTION[arm]]
        quat = geometry.wxyz_from_xyzw(Rotation.from_rotvec(move[ROTVEC_RAD]).as_quat())
        numbers[ARM_PROPRIO[arm]] = [*move[TRANSLATION], *quat, move[GRIPPER]]
    return numbers


def proprio(scene: Any) -> np.ndarray:
    """Return the measured poses of RoboTwin's `endpose` and the commanded grippers, 16 float32."""
    return measured_poses(scene).astype(np.float32)


def joint_position(scene: Any) -> np.ndarray:
    """Return RoboTwin's `joint_action`, 14 float64: the arms' commanded joint angles, rad, and grippers.

    They are the targets of the joints' drives, as in RoboTwin's data, so that the same numbers move nothing.
    """
    left, right = scene.robot.get_left_arm_jointState(), scene.robot.get_right_arm_jointState()
    return np.array([*left, *right], np.float64)
