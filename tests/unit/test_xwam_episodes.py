"""States, actions and quantiles of hand-made episodes."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from xwam.actions import bounds_from_release, denormalise, statistics_from_bounds
from xwam.episodes import clip, read_episode, statistics

FRAMES = 60


def episode_of(arms=("left", "right"), *, raw=False, seed=0):
    rng = np.random.default_rng(seed)
    proprios, actions = {}, {}
    for arm in arms:
        for values in (proprios, actions):
            values[f"{arm}_ee_pos"] = rng.normal(size=(FRAMES, 3)).tolist()
            values[f"{arm}_ee_rotm"] = (
                Rotation.random(FRAMES, random_state=seed).as_matrix().reshape(FRAMES, 9).tolist()
            )
        proprios[f"{arm}_gripper_pos"] = rng.uniform(size=(FRAMES, 1)).tolist()
    if raw:
        actions["raw_actions"] = rng.uniform(-1, 1, (FRAMES, 7)).tolist()
    return {"num_frames": FRAMES, "proprios": proprios, "actions": actions}


def test_deltas_lead_from_state_to_command():
    episode = episode_of()
    numbers = read_episode(episode)
    start, goal = (np.array(episode[part]["left_ee_pos"])[7] for part in ("proprios", "actions"))
    np.testing.assert_allclose(numbers.action[7, :3], goal - start)
    matrices = [np.reshape(episode[part]["right_ee_rotm"][7], (3, 3)) for part in ("proprios", "actions")]
    rotations = [Rotation.from_matrix(matrix) for matrix in matrices]
    turned = Rotation.from_rotvec(numbers.action[7, 10:13]) * rotations[0]
    np.testing.assert_allclose(turned.as_matrix(), rotations[1].as_matrix(), atol=1e-12)
    grippers = np.ravel(episode["proprios"]["left_gripper_pos"])
    assert numbers.action[7, 6] == pytest.approx(grippers[8] - grippers[7])
    assert (numbers.proprio[:, 3] >= 0).all()


def test_raw_commands_are_kept_and_open_is_one():
    episode = episode_of(("left",), raw=True)
    numbers = read_episode(episode)
    raw = np.array(episode["actions"]["raw_actions"])
    np.testing.assert_array_equal(numbers.action[:, :6], raw[:, :6])
    np.testing.assert_array_equal(numbers.action[:, 6], -raw[:, 6])
    assert not numbers.action[:, 7:].any()


def test_clips_are_normalised_and_masked():
    numbers = read_episode(episode_of(("left",)))
    bounds = bounds_from_release(statistics([numbers]), ("left",))
    found = clip(numbers, bounds, start=4)
    assert found.proprio.shape == (9, 16)
    assert found.action.shape == (32, 14)
    back = denormalise(found.proprio, bounds.proprio_low, bounds.proprio_high)
    np.testing.assert_allclose(back, numbers.proprio[4:37:4], atol=1e-5)
    assert found.action_mask[0].tolist() == [1] * 7 + [0] * 7
    with pytest.raises(ValueError, match="from frame 28 to 60 does not fit into 60 frames"):
        clip(numbers, bounds, start=28)


def test_statistics_are_symmetric_for_actions_and_leave_still_grippers_out():
    numbers = [read_episode(episode_of(seed=seed)) for seed in range(2)]
    found = statistics(numbers)
    for name, high in found["q99"].items():
        if "action" in name:
            assert found["q01"][name] == [-value for value in high]
    still = read_episode(episode_of(seed=0))
    object.__setattr__(still, "gripper_delta", np.concatenate([still.gripper_delta, np.zeros(500)]))
    plain = statistics([read_episode(episode_of(seed=0))])
    assert statistics([still])["q99"]["gripper_action"] == plain["q99"]["gripper_action"]
    bounds = bounds_from_release(found, ("left", "right"))
    again = bounds_from_release(statistics_from_bounds(bounds, ("left", "right")), ("left", "right"))
    assert again == bounds
