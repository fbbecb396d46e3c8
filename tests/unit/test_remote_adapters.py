"""Adapters: every file is one, mistakes are named, and conversions agree with scipy and with golden values."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from baselines.remote import adapter as adapters
from baselines.remote.adapter import FOLDER, ROTATION_SIZES, Adapter
from baselines.remote.convert import (
    env_actions,
    gripper_as,
    message,
    open_frac_from,
    resize_with_pad,
    rotation_as,
    rotation_from,
)
from baselines.remote.plausible import check_metadata, check_numbers
from baselines.remote.probe import probe_observation
from envs.robocasa.tasks import TASKS as ROBOCASA_TASKS
from envs.robocasa.tasks import env_spec as robocasa_spec
from envs.robotwin.tasks import env_spec as robotwin_spec
from evalkit.contracts.errors import BadConfig, UnknownName
from evalkit.contracts.msgpack_arrays import BadMessage
from evalkit.contracts.spec import EE_POSE_BASE, JOINT_POSITION, EnvSpec
from evalkit.contracts.types import Observation

NAMES = adapters.names()


def env_of(adapter: Adapter) -> EnvSpec:
    """Return the spec of an env on which an adapter must act."""
    if adapter.benches[-1] == "robotwin":
        T = {"left": np.eye(4), "right": np.eye(4)}
        return robotwin_spec("click_bell", layout=adapter.actions.layout, T_ee_cams=T)  # type: ignore[arg-type]
    return robocasa_spec(next(iter(ROBOCASA_TASKS)), image_hw_px=adapter.env.image_hw_px or (224, 224))


def observed(adapter: Adapter, seed: int = 0) -> Observation:
    """Return an observation with numbers that are all different."""
    rng, probe = np.random.default_rng(seed), probe_observation(adapter)
    proprio = probe.proprio.copy()
    for first in (0, 8):
        proprio[first : first + 3] = rng.uniform(-0.5, 0.5, 3)
        proprio[first + 3 : first + 7] = rotation_as("quat_wxyz", Rotation.random(random_state=first))
        proprio[first + 7] = rng.uniform()
    privileged = {name: rng.uniform(-1, 1, len(value)) for name, value in probe.privileged.items()}
    return replace(
        probe,
        rgb=rng.integers(0, 256, probe.rgb.shape, dtype=np.uint8),
        proprio=proprio,
        instruction="ring the bell",
        privileged=privileged,
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_an_adapter_with_sources(name: str) -> None:
    adapter = adapters.load(name)
    assert all(len(source.commit) == 40 or source.repo == "evalkit" for source in adapter.sources)
    assert adapters.load(str(FOLDER / f"{name}.yaml")).sha256 == adapter.sha256
    env = env_of(adapter)
    assert tuple(camera.kind for camera in env.cameras) == adapter.env.views
    assert adapter.env.cameras in (None, tuple(camera.name for camera in env.cameras))
    assert (env.arms, env.action_layout) == (adapter.env.arms, adapter.actions.layout)
    assert set(adapter.state_names) <= set(env.privileged_keys)


@pytest.mark.parametrize("name", NAMES)
def test_messages_name_neither_task_nor_seed(name: str) -> None:
    adapter = adapters.load(name)
    text = str(message(adapter, observed(adapter), session="5f0e", noise_seed=987654321))
    assert "ring the bell" in text
    assert ("987654321" in text) == (adapter.seed_key is not None)
    assert ("5f0e" in text) == (adapter.session_key is not None)


def test_pi0_on_robotwin_gets_what_its_own_evaluation_sends() -> None:
    adapter = adapters.load("pi0-robotwin")
    observation = observed(adapter)
    body = message(adapter, observation, session="", noise_seed=0)
    assert set(body) == {"images", "state", "prompt"}
    assert list(body["images"]) == ["cam_high", "cam_left_wrist", "cam_right_wrist"]
    for view, image in enumerate(body["images"].values()):
        np.testing.assert_array_equal(image, observation.rgb[view].transpose(2, 0, 1))
    np.testing.assert_array_equal(body["state"], observation.privileged[JOINT_POSITION])
    assert body["state"].dtype == np.float64
    actions = np.linspace(-1, 1, 50 * 14).reshape(50, 14)
    np.testing.assert_allclose(env_actions(adapter, {"actions": actions}, chunk_len=50), actions, atol=1e-7)


def test_an_adapter_may_extend_another() -> None:
    pi0, pi05 = adapters.load("pi0-robotwin"), adapters.load("pi05-robotwin")
    assert pi0.sha256 == pi05.sha256, "messages and actions are the same"
    assert (pi0.policy, pi05.policy) == ("pi0", "pi0.5")
    assert all("policy/pi05/" in source.file for source in pi05.sources)
    text = "extends: pi0-robotwin\npolicy: mine\nactions: {}"
    with pytest.raises(BadConfig, match=r"mine.yaml is no adapter: actions.layout: Field required"):
        adapters.parse(text, name="mine", where="mine.yaml")
    with pytest.raises(BadConfig, match=r"mine.yaml extends 'pi', which is none of the adapters cosmos-robocasa"):
        adapters.parse("extends: pi", name="mine", where="mine.yaml")
    with pytest.raises(BadConfig, match="which extends another adapter; extend pi0-robotwin"):
        adapters.parse("extends: pi05-robotwin", name="mine", where="mine.yaml")


def test_xpolicylab_steps_become_joints_and_poses() -> None:
    joint, pose = adapters.load("xpolicylab-robotwin-joint"), adapters.load("xpolicylab-robotwin-ee")
    rng = np.random.default_rng(1)
    expected = rng.uniform(-1, 1, (3, 14)).astype(np.float32)
    names = ("left_arm_joint_state", "left_ee_joint_state", "right_arm_joint_state", "right_ee_joint_state")
    steps = [dict(zip(names, np.split(row, [6, 7, 13]), strict=True)) for row in expected]
    np.testing.assert_array_equal(env_actions(joint, steps, chunk_len=3), expected)
    turns = Rotation.random(6, random_state=2)
    quats = rotation_as("quat_wxyz", turns).reshape(3, 2, 4)
    positions = rng.uniform(-0.5, 0.5, (3, 2, 3))
    steps = [
        {
            f"{arm}_ee_{what}": np.array(value)
            for i, arm in enumerate(("left", "right"))
            for what, value in (("pose", [*positions[k, i], *quats[k, i]]), ("joint_state", [0.25 + i / 2]))
        }
        for k in range(3)
    ]
    found = env_actions(pose, steps, chunk_len=3).reshape(3, 2, 7)
    np.testing.assert_allclose(found[..., :3], positions, atol=1e-6)
    np.testing.assert_allclose(found[..., 3:6], turns.as_rotvec().reshape(3, 2, 3), atol=1e-6)
    np.testing.assert_allclose(found[..., 6], [[0.25, 0.75]] * 3)
    body = message(pose, observed(pose), session="", noise_seed=0)
    left = observed(pose).proprio[:8]
    np.testing.assert_allclose(body["state"]["left_ee_pose"], left[:7], atol=1e-6)
    np.testing.assert_allclose(body["state"]["left_ee_joint_state"], left[7:])
    assert body["vision"]["cam_head"]["color"].shape == (240, 320, 3)
    assert body["instructions"] == [body["instruction"]]


@pytest.mark.parametrize("form", list(ROTATION_SIZES))
def test_rotations_agree_with_scipy_both_ways(form: str) -> None:
    turns = Rotation.random(50, random_state=3)
    numbers = rotation_as(form, turns)
    assert numbers.shape == (50, ROTATION_SIZES[form])
    assert rotation_from(form, numbers).approx_equal(turns, atol=1e-6).all()
    expected = {
        "rotvec_rad": turns.as_rotvec(),
        "quat_xyzw": turns.as_quat(canonical=True),
        "quat_wxyz": np.roll(turns.as_quat(canonical=True), 1, axis=1),
        "rot6d_cols": np.hstack([turns.as_matrix()[:, :, 0], turns.as_matrix()[:, :, 1]]),
        "euler_xyz_rad": turns.as_euler("xyz"),
    }
    np.testing.assert_allclose(numbers, expected[form], atol=1e-12)


def test_golden_rotations() -> None:
    quarter = Rotation.from_rotvec([0, 0, np.pi / 2])  # x goes to y
    half = np.sqrt(0.5)
    golden = {
        "rotvec_rad": [0, 0, np.pi / 2],
        "quat_wxyz": [half, 0, 0, half],
        "quat_xyzw": [0, 0, half, half],
        "rot6d_cols": [0, 1, 0, -1, 0, 0],
        "euler_xyz_rad": [0, 0, np.pi / 2],
    }
    for form, numbers in golden.items():
        np.testing.assert_allclose(rotation_as(form, quarter), numbers, atol=1e-12)
    longer = rotation_from("rot6d_cols", np.array([[0, 3.0, 0, -2, 1, 0]]))  # neither unit nor orthogonal
    assert longer.approx_equal(quarter, atol=1e-9).all()


@pytest.mark.parametrize(
    ("form", "numbers", "said"),
    [
        ("quat_wxyz", [[0.0, 0, 0, 0]], "must have length 1, got 0"),
        ("quat_xyzw", [[0.3, 0.4, 0.1, 0.2]], "must have length 1"),
        ("rot6d_cols", [[1.0, 0, 0, 2, 0, 0]], "no length, or one direction"),
    ],
)
def test_numbers_that_are_no_rotation(form: str, numbers: Any, said: str) -> None:
    with pytest.raises(BadMessage, match=said):
        rotation_from(form, np.array(numbers))


def test_golden_grippers() -> None:
    golden = {"open_frac": [1, 0], "closed_frac": [0, 1], "plus_opens": [1, -1], "plus_closes": [-1, 1]}
    for form, (opened, closed) in golden.items():
        assert gripper_as(form, np.array(1.0)) == opened
        np.testing.assert_allclose(open_frac_from(form, np.array([opened, closed])), [1, 0])
    np.testing.assert_array_equal(open_frac_from("closes_above_half", np.array([0, 0.49, 0.5, 1])), [1, 1, 0, 0])


def test_padding_keeps_the_ratio() -> None:
    padded = resize_with_pad(np.full((240, 320, 3), 200, np.uint8), (224, 224))
    rows = np.flatnonzero(padded.any(axis=(1, 2)))
    assert (rows[0], rows[-1], padded.any(axis=(0, 2)).all()) == (28, 195, True)


@pytest.mark.parametrize("name", NAMES)
def test_a_chunk_of_a_fitting_reply_is_accepted(name: str) -> None:
    adapter = adapters.load(name)
    observation, rows = probe_observation(adapter), 4
    reply: Any = {}
    for field in adapter.actions.fields:
        columns = []
        for part in field.parts:
            if part.part == "translation" and adapter.actions.layout == EE_POSE_BASE:
                start = 0 if part.arm == "left" else 8
                columns.append(np.tile(observation.proprio[start : start + 3], (rows, 1)))
            elif part.part == "rotation":
                columns.append(np.tile(rotation_as(str(part.form), Rotation.identity()), (rows, 1)))
            else:
                columns.append(np.zeros((rows, part.num_columns)))
        reply[field.key] = np.hstack(columns)
    if adapter.actions.steps_in_list:
        reply = [{key: array[k] for key, array in reply.items()} for k in range(rows)]
    actions = env_actions(adapter, reply, chunk_len=rows)
    check_numbers(actions, adapter)
    spec = env_of(adapter)
    assert actions.dtype == np.float32
    assert np.isfinite(actions).all()
    if spec.arms == ("left",):
        assert not actions[:, 7:].any()


POSE, JOINT, OSC = (adapters.load(n) for n in ("xpolicylab-robotwin-ee", "pi0-robotwin", "evalkit-osc"))


@pytest.mark.parametrize(
    ("adapter", "numbers", "message"),
    [
        (OSC, [0.3, 0, 0.5, 0, 3.1, 0, 1], "units of 0.05 m and 0.5 rad must lie within -2.5 and 2.5"),  # a pose
        (JOINT, [0, 90, 0, 0, 0, 0, 1] * 2, "joint angles in rad must lie within -6.28 and 6.28"),  # degrees
        (JOINT, [0, 0, 0, 0, 0, 0, 40] * 2, "open fraction of the gripper must lie within -0.5 and 1.5"),
        (POSE, [300, 0, 900, 0, 0, 0, 1] * 2, "positions in m must lie within"),  # millimetres
    ],
)
def test_numbers_of_another_layout_are_named(adapter: Adapter, numbers: list[float], message: str) -> None:
    actions = np.zeros((2, 14), np.float32)
    actions[:, : len(numbers)] = numbers
    with pytest.raises(BadMessage, match=message):
        check_numbers(actions, adapter)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"action": np.zeros((8, 7))}, "must stand under 'actions', the reply holds action"),
        (np.zeros((8, 7)), "must stand under 'actions', the reply holds ndarray"),
        ({"actions": np.zeros((7, 8))}, r"must have the shape \(8, 7\), got \(7, 8\) under 'actions'"),
        ({"actions": np.full((8, 7), np.nan)}, "not finite"),
        ({"actions": "none"}, "must be numbers"),
        ({"actions": [[1.0], [1.0, 2.0]]}, "unequal lengths"),
    ],
)
def test_replies_of_another_form_are_named(values: Any, message: str) -> None:
    with pytest.raises(BadMessage, match=message):
        env_actions(OSC, values, chunk_len=8)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"action_dim": 7}, "action_dim 7, the adapter expects 14"),
        ({"action_horizon": 16}, "action_horizon 16, the adapter expects 50"),
        ({"max_action_horizon": 10}, "max_action_horizon 10"),
        ({"action_space": "eef_delta"}, "action_space 'eef_delta', the adapter expects joint_position or qpos"),
        ({"needs_session_id": True}, "asks for a session id"),
        ({"image_resolution": [180, 320]}, r"image_resolution \[180, 320\], the adapter sends \[\[240, 320\]\]"),
    ],
)
def test_metadata_that_contradicts_is_named(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(BadMessage, match=message):
        check_metadata(metadata, JOINT, chunk_len=50)


def test_metadata_that_says_nothing_or_agrees_passes() -> None:
    check_metadata({}, JOINT, chunk_len=50)
    agreed = {"action_dim": 14, "action_horizon": 50, "action_space": "joint_position", "image_resolution": (240, 320)}
    check_metadata({**agreed, "model": "pi0"}, JOINT, chunk_len=50)


def edited(change: Any, name: str = "evalkit-osc") -> str:
    data = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    change(data)
    return yaml.safe_dump(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(gripper="open"), "gripper: Unexpected keyword argument"),
        (lambda d: d.update(dialect="grpc"), "dialect: Input should be 'openpi' or 'xpolicylab'"),
        (lambda d: d.pop("actions"), "actions: Field required"),
        (lambda d: d["images"][0].update(view=3), "view 3 does not exist, the env has 3"),
        (lambda d: d["images"][0].update(resize="pad"), "needs hw_px and resize together"),
        (lambda d: d["states"][0]["parts"][1].pop("form"), "a rotation needs one of the forms"),
        (lambda d: d["actions"]["fields"][0]["parts"].pop(), "needs gripper, rotation, translation of left, once each"),
        (lambda d: d["actions"]["fields"][0]["parts"][1].update(form="quat_wxyz"), "for rotations as rotvec_rad"),
        (lambda d: d["actions"].update(execute_steps=9), "9 of 8 actions cannot be executed"),
        (lambda d: d["actions"]["fields"][0]["parts"].append({"part": "ignored"}), "need size and why"),
    ],
)
def test_mistakes_in_a_file_are_named(change: Any, message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        adapters.parse(edited(change), name="x", where="x.yaml")


def test_files_that_are_none_are_named(tmp_path: Any) -> None:
    with pytest.raises(UnknownName, match=r"Unknown adapter 'pi-robotwin'. Did you mean 'pi0-robotwin'"):
        adapters.load("pi-robotwin")
    with pytest.raises(BadConfig, match="cannot be read: No such file"):
        adapters.load(str(tmp_path / "none.yaml"))
    for text, said in (("- a", "must hold the fields of an adapter, got list"), ("a: [", "is no YAML")):
        with pytest.raises(BadConfig, match=said):
            adapters.parse(text, name="x", where="x.yaml")


def test_the_hash_changes_with_what_decides_and_not_with_words() -> None:
    words = adapters.parse(edited(lambda d: d.update(note="other words")), name="y", where="y")
    steps = adapters.parse(edited(lambda d: d["actions"].update(execute_steps=4)), name="y", where="y")
    assert words.sha256 == OSC.sha256 != steps.sha256
