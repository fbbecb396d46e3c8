"""Actions of the controls: moved and mirrored, in every layout and frame; and the command that asks for them.

In: hand-written motions. Out: a verdict.
Read next: `evalkit/score/controls/motions.py`; `test_score_dependence.py` for the scores.
"""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from evalkit.cli.score import app
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.geometry import wxyz_from_xyzw
from evalkit.contracts.spec import EE_POSE_BASE, JOINT_POSITION
from evalkit.report.stats import ratio_interval
from evalkit.score.controls.motions import NoSuchMotion, lateral_axis, mirrored, moved
from tests.doubles.scene import write_scene_run

Y = np.array([0.0, 1.0, 0.0])


def state(position: list[float], turn: Rotation) -> np.ndarray:
    """Return the state of a left arm."""
    proprio = np.zeros(16)
    proprio[:3], proprio[3:7] = position, wxyz_from_xyzw(turn.as_quat())
    return proprio


def pose(position: list[float], turn: Rotation) -> np.ndarray:
    """Return an action of the layout `ee_pose_base`."""
    action = np.zeros((1, 14))
    action[0, :3], action[0, 3:6], action[0, 6] = position, turn.as_rotvec(), 0.25
    return action


def test_left_is_y_and_in_robotwin_minus_x() -> None:
    np.testing.assert_allclose(lateral_axis("robosuite"), Y)
    np.testing.assert_allclose(lateral_axis("robocasa"), Y)
    np.testing.assert_allclose(lateral_axis("robotwin"), [-1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(lateral_axis("not installed"), Y)


def test_a_mirrored_pose_is_mirrored_about_its_start() -> None:
    """Against the mirror image of both rotations: M R M, whose axis and angle are those of a reflected motion."""
    mirror = np.diag([1.0, -1.0, 1.0])
    start, end = Rotation.from_euler("xyz", [0.3, -0.2, 0.9]), Rotation.from_euler("xyz", [0.1, 0.4, 1.1])
    action = mirrored(
        pose([0.5, 0.2, 0.3], end), state([0.4, 0.1, 0.2], start).astype(np.float32), ["left"], EE_POSE_BASE, Y
    )
    np.testing.assert_allclose(action[0, :3], [0.5, 0.0, 0.3], atol=1e-6)
    turned = mirror @ (end * start.inv()).as_matrix() @ mirror @ start.as_matrix()
    np.testing.assert_allclose(Rotation.from_rotvec(action[0, 3:6]).as_matrix(), turned, atol=1e-6)
    assert action[0, 6] == 0.25


def test_mirroring_twice_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    actions, start = rng.uniform(-0.5, 0.5, (5, 14)), state([0.1, 0.2, 0.3], Rotation.from_rotvec([0.1, 0.2, 0.3]))
    start[8:] = start[:8]
    axis = lateral_axis("robotwin")
    once = mirrored(actions, start, ["left", "right"], EE_POSE_BASE, axis)
    twice = mirrored(once, start, ["left", "right"], EE_POSE_BASE, axis)
    np.testing.assert_allclose(twice, actions, atol=1e-6)


def test_a_moved_pose_keeps_its_motion() -> None:
    before, now = Rotation.from_rotvec([0.0, 0.0, 0.5]), Rotation.from_rotvec([0.4, 0.0, 0.0])
    step = Rotation.from_rotvec([0.0, 0.3, 0.0])
    action = moved(
        pose([0.2, 0.0, 0.1], step * before),
        state([0.1, 0.0, 0.0], before),
        state([0.5, 0.5, 0.5], now),
        ["left"],
        EE_POSE_BASE,
    )
    np.testing.assert_allclose(action[0, :3], [0.6, 0.5, 0.6], atol=1e-6)
    np.testing.assert_allclose(Rotation.from_rotvec(action[0, 3:6]).as_matrix(), (step * now).as_matrix(), atol=1e-6)


def test_joint_angles_cannot_be_mirrored() -> None:
    with pytest.raises(NoSuchMotion, match="actions of the layout joint_position say nothing of the end effector"):
        mirrored(np.zeros((1, 14)), np.zeros(16), ["left"], JOINT_POSITION, Y)


def test_the_interval_of_a_ratio_has_no_scale() -> None:
    numerators, denominators = np.array([0.2, 0.5, 0.4, 0.9]), np.array([1.0, 2.0, 1.5, 2.5])
    first = ratio_interval(numerators, denominators)
    assert first is not None
    assert first.low < numerators.sum() / denominators.sum() < first.high
    second = ratio_interval(1e-3 * numerators, 1e-3 * denominators)
    assert second is not None
    np.testing.assert_allclose(second, first)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_scene_run(tmp_path / "run", outcomes=["success"], image_hw_px=(24, 32), num_chunks=1)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--controls", "other_brunch"], "--controls takes other_branch, mirrored_action, wrong_instruction or none"),
        (["--controls", "other_branch", "--actions", "own"], "add --actions recorded or both"),
        (["--controls", "wrong_instruction", "--branches", "b"], "--branches holds the outcome of other actions"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(run: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["dataset", str(run), *arguments])
    assert isinstance(result.exception, BadConfig)
    assert message in str(result.exception)


def test_a_dry_run_predicts_nothing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["dataset", str(run), "--controls", "other_branch", "--branches", str(tmp_path / "b"), "--dry-run"]
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None
    assert not (tmp_path / "b").exists()
    assert not Path("scores/scores.parquet").exists()
