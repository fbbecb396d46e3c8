"""What the planners `cpu` and `mplib` have in common: the arm with its range, batches, grippers, joint actions.

In: RoboTwin's arguments. Out: plans as RoboTwin reads them. Read next: `cpu.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .chain import ArmChain, robot_name

Plan = dict[str, Any]

NUM_GRIPPER_SAMPLES = 200

ARX_X5_RANGE_RAD = np.array([[-3.14, 2.618], [-0.3, 3.5], [-0.3, 3.5], [-2.0, 1.7], [-1.57, 1.57], [-np.pi, np.pi]])
"""Range of the arms of aloha-agilex in which they do not meet themselves.

RoboTwin's URDF states 10 rad on both sides of every joint, which limits nothing: beyond this range the gripper turns
back into the forearm, and the simulated arm gets stuck on itself. curobo checks such collisions; here the range stands
for them. Joints 2, 4 and 5 end where collision meshes begin to overlap, as mplib sees them: at -0.3 and 3.9, -2.05 and
1.75, -1.55 and 1.65. The SDK of the maker (arx5-sdk, model X5) permits -0.05 to 3.14, -1.6 to 1.55, -1.57 to 1.57.
Joint 1 has the SDK's range, joint 3 about that (-0.1 to 3.24), and joint 6 turns freely. A wider range helps no policy:
in the simulator, joint 2 stops the arm at -0.23, joint 3 at -0.05 and joint 4 at -1.85 and 1.78, whatever is asked.
"""

RANGES_RAD = {"arx5_description": ARX_X5_RANGE_RAD}
"""Ranges by the name that the URDF gives the robot."""

UNIT_LIMIT = 1.0
"""mplib's limit of velocity (rad/s) and of acceleration (rad/s2) unless it is given others, which RoboTwin does not."""


def gripper_plan(now_val: float, target_val: float) -> Plan:
    """Return 200 evenly spaced openings from one to another, as RoboTwin's planners do.

    Example:
        >>> gripper_plan(0.0, 1.0)["per_step"]
        0.005
    """
    return {
        "num_step": NUM_GRIPPER_SAMPLES,
        "per_step": (target_val - now_val) / NUM_GRIPPER_SAMPLES,
        "result": np.linspace(now_val, target_val, NUM_GRIPPER_SAMPLES),
    }


def urdf_path(curobo_yml: Path) -> Path:
    """Return the URDF that the embodiment's `config.yml` names, in the folder of curobo's configuration.

    Raises:
        ValueError: The embodiment has other arms than one robot with two; the end effector's frames differ there.
    """
    config_path = curobo_yml.with_name("config.yml")
    config = yaml.safe_load(config_path.read_text())
    if not config.get("dual_arm", False):
        raise ValueError(
            f"{config_path}: planners cpu and mplib know embodiments with two arms on one robot (aloha-agilex) alone; "
            "use planner curobo."
        )
    return config_path.parent / str(config["urdf_path"])


def arm_chain(urdf: Path, joints: Sequence[str]) -> ArmChain:
    """Return an arm's chain with the limits of the URDF and, where it is known, the arm's range."""
    chain = ArmChain.from_urdf(urdf, joints)
    range_rad = RANGES_RAD.get(robot_name(urdf))
    return chain if range_rad is None else chain.limited(range_rad)


def as_batch(plans: Sequence[Plan]) -> Plan:
    """Return the plans of a batch as RoboTwin reads them: `status` is an array of `Success` and `Failure`.

    Where one is a success there are `position` and `velocity` with an entry for each pose, None for failures.
    """
    done = [plan["status"] == "Success" for plan in plans]
    answer: Plan = {"status": np.array(["Success" if yes else "Failure" for yes in done], dtype=object)}
    if any(done):
        answer["position"] = _objects([plan.get("position") for plan in plans])
        answer["velocity"] = _objects([plan.get("velocity") for plan in plans])
    return answer


def _objects(rows: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(rows), dtype=object)
    array[:] = rows
    return array


class PathTiming:
    """Stands for RoboTwin's `MplibPlanner`, of which an evaluation uses `TOPP` alone, for joint actions.

    The arguments of the constructor, which describe a planning world, are not needed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def TOPP(
        self, path: np.ndarray, step: float = 0.1, verbose: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
        """Return times, positions, velocities, accelerations and the duration of the fastest motion along a path.

        As mplib 0.2.1's `Planner.TOPP` with its limits: a path that does not move has no samples, and RoboTwin then
        holds the arm still for 50 physics steps.
        """
        import toppra
        from toppra import algorithm, constraint

        joints = path.shape[1]
        unit = np.tile([-UNIT_LIMIT, UNIT_LIMIT], (joints, 1))
        spline = toppra.SplineInterpolator(np.linspace(0, 1, len(path)), path)
        limits = [constraint.JointVelocityConstraint(unit), constraint.JointAccelerationConstraint(unit)]
        problem = algorithm.TOPPRA(limits, spline, parametrizer="ParametrizeConstAccel")
        trajectory = problem.compute_trajectory()
        if trajectory is None:
            raise RuntimeError("toppra found no motion along the path of a joint action.")
        times = np.linspace(0, trajectory.duration, int(trajectory.duration / step))
        return times, trajectory(times), trajectory(times, 1), trajectory(times, 2), trajectory.duration
