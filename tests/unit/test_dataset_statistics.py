"""Quantiles of a stream against numpy's; bounds for training."""

from pathlib import Path

import numpy as np
import pytest

from evalkit.dataset.layout import read_track, tracks
from evalkit.dataset.statistics import Tails, data_sha256, statistics
from evalkit.dataset.writer import write_episode, write_metadata
from tests.doubles.recordings import RECORDING, steps_of
from xwam import cli
from xwam.robots.actions import training_bounds


@pytest.mark.parametrize("count", [1, 2, 7, 150, 5003])
def test_tails_give_the_quantiles_of_the_whole(count: int) -> None:
    values = np.random.default_rng(count).normal(size=(count, 3))
    tails = Tails(most=count, width=3)
    for part in np.array_split(values, 9):
        tails.add(part)
    for got, share in zip(tails.quantiles(), (0.01, 0.99), strict=True):
        np.testing.assert_allclose(got, np.quantile(values, share, axis=0), atol=1e-12)
    assert len(tails._low) <= 2 * tails._kept + len(values) // 9 + 1


def test_tails_refuse_more_than_they_were_made_for() -> None:
    with pytest.raises(ValueError, match="at most 5 values"):
        Tails(most=5, width=1).add(np.zeros((6, 1)))
    with pytest.raises(ValueError, match="no values"):
        Tails(most=5, width=1).quantiles()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for index in range(3):
        write_episode(tmp_path, index, steps_of(index), RECORDING, instructions=["x"])
    write_metadata(tmp_path)
    return tmp_path


def test_statistics_pool_the_frames_of_all_episodes(root: Path) -> None:
    found = statistics(lambda: tracks(root))
    states = np.concatenate([steps_of(index).proprio for index in range(3)])
    np.testing.assert_allclose(found["q01"]["proprio_left_ee_xyz"], np.quantile(states[:, :3], 0.01, axis=0), atol=1e-6)
    for name in ("action_left_ee_xyz", "action_left_ee_axisangle", "gripper_action"):
        np.testing.assert_array_equal(found["q01"][name], np.negative(found["q99"][name]))
    with pytest.raises(ValueError, match="at least one usable episode"):
        statistics(lambda: [])


def test_raw_grippers_stay_as_they_are(root: Path) -> None:
    found = statistics(lambda: tracks(root))
    raw = read_track(root, "chunk-0000/episode_0000000").raw
    bounds = training_bounds(found, ("left",), raw=raw)
    assert (bounds.action_low[6], bounds.action_high[6]) == (-1.0, 1.0)
    assert training_bounds(found, ("left",), raw=False).action_high[6] == found["q99"]["gripper_action"][0]


def test_commands_name_what_is_broken(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    (root / "data" / "chunk-0000" / "episode_0000001.json").write_text("{")
    for verb, status in (("check-data", 1), ("statistics", 0)):
        assert cli.main([verb, str(root)]) == status
        printed = capsys.readouterr().out
        assert "episode_0000001.json cannot be read" in printed
        assert "2 episodes, 80 frames; 1 broken" in printed
    written = json.loads((root / "statistics.json").read_text())
    about = written["about"]
    assert about == {"episodes": 2, "frames": 80, "left_out": 1, "data_sha256": data_sha256(root)}


def test_statistics_look_at_no_video_and_say_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "video" / "a" / "chunk-0000" / "episode_0000001.mp4").unlink()
    assert cli.main(["check-data", str(root)]) == 1
    assert "2 episodes, 80 frames; 1 broken" in capsys.readouterr().out
    assert cli.main(["statistics", str(root)]) == 0
    assert "3 episodes, 120 frames; 0 broken episodes left out; videos not read" in capsys.readouterr().out
