"""Actions that no range tells from right ones: another order of a quaternion, changes for angles, metres for units.

In: replies in the form of each adapter, and the measured state. Out: a verdict on `baselines/remote/starts.py`.
Read next: `test_remote_adapters.py`, the ranges; `tests/sim/test_robotwin_remote.py`, that no expert is refused.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from baselines.remote import adapter as adapters
from baselines.remote.convert import env_actions
from baselines.remote.plausible import check_numbers
from baselines.remote.policy import RemotePlugin
from baselines.remote.probe import probe_observation
from baselines.remote.settings import RemoteConfig
from baselines.remote.starts import FIRST_ACTIONS, FirstActions, check_start
from evalkit import testing
from evalkit.contracts.errors import EpisodeFault
from evalkit.contracts.msgpack_arrays import BadMessage
from evalkit.contracts.spec import JOINT_POSITION
from evalkit.contracts.types import Observation
from tests.doubles.policy_server import serving

POSE, JOINT, OSC = (adapters.load(n) for n in ("xpolicylab-robotwin-ee", "pi0-robotwin", "evalkit-osc"))

HOME = {"left": Rotation.from_quat([0, 0, 0.714, 0.7]), "right": Rotation.from_quat([0.2, 0.1, 0.7, 0.7])}
"""Rotations near those at which RoboTwin's arms start."""

JOINTS = np.array([0.4, 1.2, 0.9, -0.7, 0.0, 0.3, 1.0, -0.4, 1.6, 1.1, -0.5, 0.2, -0.3, 0.2])


def standing() -> Observation:
    """Return an observation with both arms at known poses and joints."""
    seen = probe_observation(POSE)
    proprio = seen.proprio.copy()
    for first, rotation in zip((3, 11), HOME.values(), strict=True):
        proprio[first : first + 4] = rotation.as_quat()[[3, 0, 1, 2]]
    return replace(seen, proprio=proprio, privileged={JOINT_POSITION: JOINTS})


def poses(order: list[int], *, turned: Rotation | None = None, arms: tuple[str, str] = ("left", "right")) -> np.ndarray:
    """Return two steps of a server whose quaternions have an order, as actions of the env.

    Args:
        order: Of (x, y, z, w).
        turned: Rotation that the first action adds to each arm.
        arms: Whose numbers stand at the left and at the right arm's keys.
    """
    seen, step = standing(), dict[str, np.ndarray]()
    for key, arm in zip(("left", "right"), arms, strict=True):
        rotation = HOME[arm] if turned is None else turned * HOME[arm]
        position_m = seen.proprio[:3] if arm == "left" else seen.proprio[8:11]
        step[f"{key}_ee_pose"] = np.hstack([position_m, rotation.as_quat()[order]])
        step[f"{key}_ee_joint_state"] = np.ones(1)
    return env_actions(POSE, [step, step], chunk_len=2)


WXYZ, XYZW = [3, 0, 1, 2], [0, 1, 2, 3]


def test_a_start_at_the_measured_pose_is_accepted() -> None:
    check_start(poses(WXYZ), POSE, standing())
    check_start(poses(WXYZ, turned=Rotation.from_euler("x", 59, degrees=True)), POSE, standing())


def test_another_order_of_quaternions_is_named() -> None:
    check_numbers(poses(XYZW), POSE)  # no range tells it
    with pytest.raises(
        BadMessage, match=r"turned by 1[0-9][0-9] degrees .* quaternions in the order xyzw where .* wxyz"
    ):
        check_start(poses(XYZW), POSE, standing())


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (poses(WXYZ, turned=HOME["left"].inv() * Rotation.from_euler("x", 5, degrees=True)), "changes of rotation"),
        (poses(WXYZ, turned=HOME["left"].inv() * HOME["left"].inv()), "inverse rotations"),
        (
            poses(WXYZ, turned=Rotation.from_euler("x", 90, degrees=True)),
            "turned by 90 degrees .* another end-effector",
        ),
        (poses(WXYZ, arms=("right", "left")), "0.50 m from .* with the right arm's numbers in place of the left one's"),
        (0.01 + 0 * poses(WXYZ), r"\(at most 0.3 m\), .* with changes, or in another frame"),
    ],
)
def test_poses_that_start_elsewhere_are_named(actions: np.ndarray, message: str) -> None:
    with pytest.raises(BadMessage, match=message):
        check_start(actions, POSE, standing())


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (JOINTS + 0.55, "up to 0.55 rad from the measured ones"),
        (0.1 * np.ones(14), "with changes of joint angles where the adapter says absolute angles"),
        (np.hstack([JOINTS[7:], JOINTS[:7]]), "with the right arm's numbers in place of the left one's"),
        (np.hstack([np.degrees(JOINTS[:6]), 1, np.degrees(JOINTS[7:13]), 1]), "in degrees"),
        (-JOINTS, "in another order, of another sign"),
    ],
)
def test_joints_that_start_elsewhere_are_named(first: np.ndarray, message: str) -> None:
    check_start(np.tile(JOINTS + 0.45, (2, 1)), JOINT, standing())
    with pytest.raises(BadMessage, match=message):
        check_start(np.tile(first, (2, 1)), JOINT, standing())


def chunks_of(adapter: Any, largest: float, first: FirstActions, count: int = FIRST_ACTIONS) -> None:
    actions = np.zeros((8, 14), np.float32)
    actions[:, :6] = largest * np.linspace(-1, 1, 48).reshape(8, 6)
    for _ in range(count // 8):
        first.add(actions, adapter)


def test_metres_are_not_taken_for_units_of_5_cm() -> None:
    """0.05 m is the largest motion of a step; as a number of this layout it is a twentieth of it."""
    first = FirstActions()
    chunks_of(OSC, 0.05, first, FIRST_ACTIONS - 8)
    with pytest.raises(
        BadMessage, match=r"exceeds 0.05 in the first 64 actions .* in metres where the adapter says units"
    ):
        chunks_of(OSC, 0.05, first, 8)


def test_changes_near_home_are_not_taken_for_joint_angles() -> None:
    """RoboTwin's joints are 0 at home, so that the measured state tells nothing."""
    with pytest.raises(
        BadMessage, match=r"no joint angle exceeds 0.15 rad in the first 64 actions .* changes of joint"
    ):
        chunks_of(JOINT, 0.15, FirstActions())


@pytest.mark.parametrize(("adapter", "largest"), [(OSC, 0.2), (OSC, 0.0), (JOINT, 0.5), (JOINT, 0.0), (POSE, 0.01)])
def test_motion_and_standing_still_are_accepted(adapter: Any, largest: float) -> None:
    chunks_of(adapter, largest, FirstActions())


def test_every_chunk_is_compared_and_a_setting_stops_it() -> None:
    """At home changes and angles are the same; later they are not."""

    pytest.importorskip("websockets", reason="websockets is not installed (pip install '.[remote]')")

    def changes(observation: Any) -> Any:
        return {"actions": np.full((50, 14), 0.1)}

    with serving(changes) as server:
        for check_motion in (True, False):
            config = RemoteConfig(url=server.url, adapter="pi0-robotwin", check_motion=check_motion)
            policy = RemotePlugin().make(config)
            request = testing.noise_request(policy.spec, 0, 0)
            home, away = (replace(request.observation, privileged={JOINT_POSITION: at}) for at in (0 * JOINTS, JOINTS))
            testing.ask(policy, replace(request, observation=home))
            later = replace(request, observation=away, chunk_idx=1, step_idx=50)
            if check_motion:
                with pytest.raises(EpisodeFault, match="broke its form: left arm: the first joint angles of a chunk"):
                    policy.infer([later])
            else:
                policy.infer([later])
                assert "check_motion=false" in RemotePlugin().provenance(config)["checked"]
