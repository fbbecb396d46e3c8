"""The distance between sets of predicted and true frames: its value, its bias, its spread, and what it sees.

In: samples of known distributions; the synthetic scene as a run and as folders. Out: a verdict.
Read next: `evalkit/score/distribution.py`, `evalkit/score/metrics/kernel_distance.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from evalkit.report.stats import mean_interval
from evalkit.score.chunk import ScoreOptions, score_chunk
from evalkit.score.distribution import METRIC, ClipSets, chunk_totals
from evalkit.score.folders import score_folders
from evalkit.score.frame import GroundTruth
from evalkit.score.metrics.kernel_distance import KERNEL_WIDTH, MIN_CLIPS, embed, pseudo_values
from evalkit.score.results.table import ClipScores, read_scores
from evalkit.score.results.totals import Totals
from evalkit.score.run import score_run
from evalkit.store.clips import ClipChunk
from evalkit.store.records import Outcome
from tests.doubles.known import known
from tests.doubles.scene import scene_chunk, scene_spec, write_scene_folders, write_scene_run

SIZE = (64, 80)
DIM = 512
OPTIONS = ScoreOptions(lpips_nets=(), extras=("distribution",))
Change = Callable[[np.ndarray], np.ndarray]


def _gaussian_clips(rng: np.random.Generator, num_clips: int, shift: float, spread: float = 0.02) -> np.ndarray:
    """Return frames of clips that share half of their variance, clips,4,DIM."""
    clips = rng.normal(0.0, spread / 2**0.5, (num_clips, 1, DIM))
    frames = clips + rng.normal(0.0, spread / 2**0.5, (num_clips, 4, DIM))
    frames[..., 0] += shift
    return frames


def _means(frames: np.ndarray) -> np.ndarray:
    return embed(frames.reshape(-1, DIM)).reshape(*frames.shape[:2], -1).mean(axis=1)


def test_it_equals_the_kernel_over_all_pairs_of_clips() -> None:
    rng = np.random.default_rng(0)
    true, pred = _gaussian_clips(rng, 6, 0.0), _gaussian_clips(rng, 6, 0.3)

    def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        kernel = np.exp(-0.5 * cdist(a.reshape(-1, DIM), b.reshape(-1, DIM), "sqeuclidean") / KERNEL_WIDTH**2)
        return kernel.reshape(6, 4, 6, 4).mean(axis=(1, 3))[~np.eye(6, dtype=bool)]

    expected = (between(true, true) + between(pred, pred) - 2 * between(true, pred)).mean()
    assert pseudo_values(_means(true), _means(pred)).mean() == pytest.approx(expected, rel=0.1)


def test_its_parts_are_those_of_the_jackknife() -> None:
    rng = np.random.default_rng(1)
    true, pred = _means(_gaussian_clips(rng, 7, 0.0)), _means(_gaussian_clips(rng, 7, 0.2))
    whole = pseudo_values(true, pred).mean()
    without = [pseudo_values(*(np.delete(side, idx, axis=0) for side in (true, pred))).mean() for idx in range(7)]
    assert pseudo_values(true, pred) == pytest.approx(7 * whole - 6 * np.array(without))


@pytest.mark.parametrize("num_clips", [MIN_CLIPS, 12])
def test_it_is_unbiased_for_few_clips_and_its_interval_holds(num_clips: int) -> None:
    rng, repetitions = np.random.default_rng(2), 80
    width, shift, spread = KERNEL_WIDTH**2, 0.3, 0.02
    exact = 2 * (width / (width + 2 * spread**2)) ** (DIM / 2) * -np.expm1(-(shift**2) / (2 * (width + 2 * spread**2)))
    for expected, moved in ((0.0, 0.0), (exact, shift)):
        estimates, held = [], 0
        for _ in range(repetitions):
            sides = _gaussian_clips(rng, num_clips, 0.0), _gaussian_clips(rng, num_clips, moved)
            parts = pseudo_values(*map(_means, sides))
            low, high = known(mean_interval(parts, np.ones(num_clips)))
            estimates.append(parts.mean())
            held += low <= expected <= high
        error = np.std(estimates) / repetitions**0.5
        assert abs(np.mean(estimates) - expected) < 4 * error + 0.02 * expected  # 0.02: a finite number of frequencies
        assert held >= 0.9 * repetitions


@pytest.fixture(scope="module")
def chunks() -> list[ClipChunk]:
    return [scene_chunk(chunk_idx=index, num_frames=8, image_hw_px=SIZE) for index in range(MIN_CLIPS)]


def _distance(chunks: Sequence[ClipChunk], change: Change) -> float:
    """Return the distance of changed ground truth from ground truth."""
    sets = ClipSets()
    for index, chunk in enumerate(chunks):
        truth = GroundTruth(chunk.true, chunk.intrinsics_v33_px, scene_spec(SIZE))
        predicted = replace(known(chunk.predicted), rgb=change(chunk.true.rgb_fvhwc_u8))
        totals = chunk_totals({"policy": truth}, {"policy": predicted}, chunk.start.rgb_fvhwc_u8[0])
        sets.add(ClipScores(task="ball", index=index, outcome="success", scores=(), totals=totals))
    return float(np.mean([known(score.value) for clip in sets.scored() for score in clip.scores]))


def test_it_sees_frozen_noisy_and_disordered_frames(chunks: list[ClipChunk]) -> None:
    rng = np.random.default_rng(3)

    def noisy(rgb: np.ndarray) -> np.ndarray:
        return np.clip(rgb + rng.normal(0.0, 12.0, rgb.shape), 0, 255).astype(np.uint8)

    assert _distance(chunks, lambda rgb: rgb) == 0.0
    assert _distance(chunks, noisy) > 0.01
    assert _distance(chunks, lambda rgb: np.repeat(rgb[:1], len(rgb), axis=0)) > 0.01
    assert _distance(chunks, lambda rgb: rgb[[4, 1, 6, 0, 7, 2, 5, 3]]) > 0.01


def _rows(path: Path) -> pd.DataFrame:
    scores = read_scores(path)
    return scores[scores["metric"] == METRIC]


def test_a_run_has_a_row_a_clip_whatever_the_processes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    outcomes: list[Outcome] = ["success", "failure", "success", "failure", "success", "error"]
    write_scene_run(run, outcomes=outcomes, num_chunks=2, image_hw_px=SIZE)
    rows = _rows(score_run(run, workers=2, options=OPTIONS))
    assert rows.groupby("subject", observed=True).size().to_dict() == {"policy": 5, "repeat_last_frame": 5}
    assert set(rows["status"]) == {"ok"}
    assert rows.drop_duplicates(["subject", "index"]).shape == rows.shape
    alone = _rows(score_run(run, workers=1, options=OPTIONS))
    assert alone["value"].to_numpy() == pytest.approx(rows["value"].to_numpy(), abs=1e-9)


def test_too_few_clips_have_no_value_but_a_reason(tmp_path: Path) -> None:
    write_scene_run(tmp_path / "run", outcomes=["success"] * 4, image_hw_px=SIZE)
    rows = _rows(score_run(tmp_path / "run", workers=1, options=OPTIONS))
    assert set(rows["status"]) == {"too_few_samples"}
    assert set(rows["reason"]) == {"4 of the 5 clips that a distance between sets needs"}


def test_folders_give_what_a_run_gives(tmp_path: Path) -> None:
    run, pred, true = (tmp_path / name for name in ("run", "pred", "true"))
    write_scene_run(run, outcomes=["success"] * 5, num_frames=2, image_hw_px=SIZE)
    for index in range(5):
        chunk = scene_chunk(seed=index, num_frames=2, image_hw_px=SIZE)
        write_scene_folders(pred / f"clip{index}", true / f"clip{index}", chunk)
    of_folders = _rows(score_folders(pred, true, tmp_path / "scores.parquet", options=OPTIONS))
    of_run = _rows(score_run(run, workers=1, options=OPTIONS))
    for subject in ("policy", "repeat_last_frame"):
        values = [rows[rows["subject"] == subject]["value"].to_numpy() for rows in (of_folders, of_run)]
        assert len(values[0]) == 5
        assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_frames_that_cannot_be_scored_are_counted(tmp_path: Path) -> None:
    pred, true = tmp_path / "pred", tmp_path / "true"
    for index in range(5):
        chunk = scene_chunk(seed=index, num_frames=2, image_hw_px=SIZE)
        write_scene_folders(pred / f"clip{index}", true / f"clip{index}", chunk)
    (pred / "clip0/rgb/front/0001.png").write_bytes(b"no image")
    rows = _rows(score_folders(pred, true, tmp_path / "scores.parquet", options=OPTIONS))
    policy = rows[rows["subject"] == "policy"].set_index("clip")
    assert policy["status"].to_dict() == {"clip0": "some_missing_frames"} | {f"clip{idx}": "ok" for idx in range(1, 5)}
    assert str(policy["reason"]["clip0"]).startswith("1 of 4 images are not in the value (first: unreadable")


def test_images_too_small_for_the_network_are_named() -> None:
    totals: Totals = {}
    chunk = scene_chunk(num_frames=2, image_hw_px=(24, 32))
    score_chunk(chunk, scene_spec((24, 32)), OPTIONS, totals=totals)
    assert known(totals["policy"].problem).status == "too_small"
