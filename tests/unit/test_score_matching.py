"""Frames are matched by number, by time or from the first one, and every doubt is named with the option that ends it.

In: numbers and rates; videos and images of a moving disc. Out: a verdict.
Read next: `evalkit/score/sources/matching.py`.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from evalkit.score.chunk import ScoreOptions
from evalkit.score.folders import score_folders
from evalkit.score.results.table import read_scores
from evalkit.score.sources.folder_options import FolderOptions
from evalkit.score.sources.matching import MatchOptions, SideFrames, match_frames
from tests.doubles.folders import write_video

ONLY = ScoreOptions(references=False, lpips_nets=())
NOISE_DB = 36.0
"""PSNR of the noise that is added to every prediction is 36.7 dB; a frame off gives less than 30."""


def disc(steps: range) -> np.ndarray:
    """Return images of a disc that moves two pixels a step."""
    images = np.full((len(steps), 48, 64, 3), 90, np.uint8)
    for image, step in zip(images, steps, strict=True):
        cv2.circle(image, (8 + 2 * step, 24), 7, (230, 40, 40), -1)
    return images


def noisy(images: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).integers(-6, 7, images.shape)
    return np.clip(images.astype(int) + noise, 0, 255).astype(np.uint8)


def write_images(folder: Path, images: np.ndarray, first: int = 0, name: str = "{:04d}.png") -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate(images, start=first):
        (folder / name.format(number)).write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())


def outcome(tmp_path: Path, **said: Any) -> tuple[int, float, dict[str, str]]:
    """Return how many frames have a value, the lowest PSNR, and the reason of each check."""
    path = tmp_path / "scores.parquet"
    files = FolderOptions.parse(**said)
    table = read_scores(score_folders(tmp_path / "pred", tmp_path / "gt", path, options=ONLY, files=files))
    psnr = table[(table["metric"] == "psnr_db/frame_mean") & table["value"].notna()]["value"]
    rows = table[[str(metric).startswith("check/") for metric in table["metric"]]]
    checks = {str(row.metric): f"{row.status}: {row.reason}" for row in rows.itertuples()}
    return len(psnr), float(psnr.min()) if len(psnr) else 0.0, checks


TRUE = disc(range(12))


@pytest.mark.parametrize(
    ("pred", "first_pred", "first_true", "options"),
    [
        (TRUE, 0, 0, {}),
        (TRUE, 1, 1, {}),
        (TRUE, 1, 0, {"offset": 0}),
        (TRUE, 7, 0, {"offset": 0}),
        (TRUE[3:], 3, 0, {"gt_offset": 3}),
        (disc(range(-3, 12)), 0, 0, {"offset": 3}),
        (disc(range(-3, 15)), 0, 0, {"offset": 3}),
        (disc(range(20)), 0, 0, {"offset": 0}),
        (TRUE[::2], 0, 0, {"fps": "5,10"}),
        (TRUE[1::2], 0, 0, {"fps": "5,10", "gt_offset": 1}),
        (TRUE[::3], 1, 0, {"fps": "1,3", "offset": 0}),
        (disc(range(24))[::1].repeat(2, axis=0), 0, 0, {"fps": "20,10"}),
    ],
)
def test_options_that_state_the_match_are_followed(
    tmp_path: Path, pred: np.ndarray, first_pred: int, first_true: int, options: dict[str, Any]
) -> None:
    write_images(tmp_path / "gt/clip", TRUE, first_true)
    write_images(tmp_path / "pred/clip", noisy(pred), first_pred)
    count, lowest, checks = outcome(tmp_path, **options)
    assert count >= 4
    assert lowest > NOISE_DB
    assert not checks


@pytest.mark.parametrize(
    ("pred", "first_pred", "check", "named"),
    [
        (TRUE, 1, "frame_numbers", "numbered from 1, the ground truth's from 0"),
        (TRUE[:8], 0, "frame_count", "8 frames, the ground truth 12; 4 predicted frames from 8 on are absent"),
        (disc(range(20)), 0, "frame_count", "Add --offset 8 if the prediction begins with 8 conditioning frames"),
        (TRUE[1:], 1, "frame_count", "predicted frame 0 is absent"),
    ],
)
def test_a_likely_match_is_scored_with_a_warning(
    tmp_path: Path, pred: np.ndarray, first_pred: int, check: str, named: str
) -> None:
    write_images(tmp_path / "gt/clip", TRUE)
    write_images(tmp_path / "pred/clip", noisy(pred), first_pred)
    _, lowest, checks = outcome(tmp_path)
    assert lowest > NOISE_DB
    assert list(checks) == [f"check/{check}"]
    assert checks[f"check/{check}"].startswith("warning: ")
    assert named in checks[f"check/{check}"]


@pytest.mark.parametrize(
    ("pred", "first_pred", "option"),
    [
        (disc(range(-2, 12)), 0, "--offset 2 "),
        (disc(range(-2, 12)), 5, "--offset 2 "),
        (TRUE[1:], 0, "--gt-offset 1 "),
        (TRUE[::2], 0, "--fps 1,2 "),
        (TRUE[1::2], 0, "--fps 1,2 --gt-offset 1 "),
        (TRUE[:8], 1, "--offset 0 "),
        (TRUE.repeat(2, axis=0), 0, "--fps 2,1 "),
    ],
)
def test_a_match_that_another_one_beats_is_refused(
    tmp_path: Path, pred: np.ndarray, first_pred: int, option: str
) -> None:
    write_images(tmp_path / "gt/clip", TRUE)
    write_images(tmp_path / "pred/clip", noisy(pred), first_pred)
    count, _, checks = outcome(tmp_path)
    assert count == 0
    assert checks["check/frame_alignment"].startswith("refused: ")
    assert f"better with {option}" in checks["check/frame_alignment"]


def test_a_stated_rate_leaves_open_where_both_sides_begin(tmp_path: Path) -> None:
    write_images(tmp_path / "gt/clip", TRUE)
    write_images(tmp_path / "pred/clip", noisy(TRUE[1::2]))
    count, _, checks = outcome(tmp_path, fps="5,10")
    assert count == 0
    assert "better with --fps 1,2 --gt-offset 1 " in checks["check/frame_alignment"]
    count, lowest, checks = outcome(tmp_path, fps="5,10", gt_offset=1)
    assert (count, checks) == (6, {})
    assert lowest > NOISE_DB


def test_a_prediction_that_fits_nowhere_is_scored(tmp_path: Path) -> None:
    """A bad model is not accused of another rate."""
    write_images(tmp_path / "gt/clip", TRUE)
    for name, bad in (
        ("grey", np.full_like(TRUE, 128)),
        ("noise", np.random.default_rng(1).integers(0, 256, TRUE.shape, np.uint8)),
        ("still", noisy(TRUE[:1].repeat(12, axis=0))),
        ("wrong way", noisy(disc(range(0, -12, -1)))),
    ):
        write_images(tmp_path / name / "pred/clip", np.concatenate([bad, bad[:4]]))
        (tmp_path / name / "gt").symlink_to(tmp_path / "gt")
        count, _, checks = outcome(tmp_path / name)
        assert count == 12, name
        assert "check/frame_count" in checks, name
        assert all(reason.startswith("warning: ") for reason in checks.values()), name


@pytest.mark.parametrize("rates", [(5, 10), (10, 5), (30, 25)])
def test_videos_of_different_rates_are_refused(tmp_path: Path, rates: tuple[int, int]) -> None:
    write_video(tmp_path / "gt/clip.mp4", TRUE, "libx264rgb", "rgb24", fps=rates[1])
    write_video(tmp_path / "pred/clip.mp4", noisy(TRUE), "libx264rgb", "rgb24", fps=rates[0])
    count, _, checks = outcome(tmp_path)
    assert count == 0
    assert f"add --fps {rates[0]},{rates[1]} to match by time" in checks["check/frame_rate"]
    count, lowest, checks = outcome(tmp_path, fps=str(rates[1]))
    assert (count, checks) == (12, {})
    assert lowest > NOISE_DB


@pytest.mark.parametrize(("rates", "count"), [((10, 15), 10), ((15, 10), 8), ((24, 30), 6)])
def test_rates_that_share_some_moments_compare_these(rates: tuple[int, int], count: int) -> None:
    pred, true = (SideFrames(numbers=tuple(range(20 if rates != (24, 30) else 24))) for _ in range(2))
    true = SideFrames(numbers=tuple(range({(10, 15): 30, (15, 10): 16, (24, 30): 30}[rates])))
    match = match_frames(pred, true, MatchOptions(fps=(Fraction(rates[0]), Fraction(rates[1]))))
    assert len(match.true) == count
    for t, p in zip(match.true, match.pred, strict=True):
        assert Fraction(p, rates[0]) == Fraction(t, rates[1])


def test_rates_that_rounding_explains_are_equal(tmp_path: Path) -> None:
    pred, true = (SideFrames(numbers=(0, 1), fps=fps) for fps in (Fraction(30000, 1001), Fraction(30)))
    assert not match_frames(pred, true, MatchOptions()).findings


def test_a_gap_shifts_no_other_frame(tmp_path: Path) -> None:
    write_images(tmp_path / "gt/clip", TRUE)
    write_images(tmp_path / "pred/clip", noisy(TRUE))
    (tmp_path / "pred/clip/0003.png").unlink()
    count, lowest, checks = outcome(tmp_path)
    assert count == 11
    assert lowest > NOISE_DB
    assert "predicted frame 3 is absent" in checks["check/frame_count"]


def test_frames_are_sorted_by_number(tmp_path: Path) -> None:
    write_images(tmp_path / "gt/clip", TRUE, 1, "frame_{:04d}.png")
    write_images(tmp_path / "pred/clip", noisy(TRUE), 1, "out{}.png")
    assert outcome(tmp_path)[0] == 12
    assert outcome(tmp_path)[1] > NOISE_DB


def test_a_number_that_two_files_have_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "gt/clip", TRUE)
    write_images(tmp_path / "pred/clip", noisy(TRUE))
    (tmp_path / "pred/clip/3.png").write_bytes((tmp_path / "pred/clip/0004.png").read_bytes())
    count, _, checks = outcome(tmp_path)
    assert count == 0
    assert "frame 3 exists twice" in checks["check/files"]


def test_one_black_frame_suggests_no_other_match(tmp_path: Path) -> None:
    write_images(tmp_path / "gt/clip", TRUE)
    bad = np.concatenate([noisy(TRUE), noisy(TRUE)[-1:]])
    bad[0] = 0
    write_images(tmp_path / "pred/clip", bad)
    count, _, checks = outcome(tmp_path)
    assert count == 12
    assert "check/frame_alignment" not in checks
