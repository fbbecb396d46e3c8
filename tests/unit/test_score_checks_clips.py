"""Order of clips: mixed-up and copied predictions are named, poor models are not.

In: clips of smooth random images, with predictions of known errors. Out: a verdict.
Read next: `evalkit/score/checks/clips.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from evalkit.score.checks.clips import ClipOrder
from evalkit.score.chunk import ScoreOptions
from evalkit.score.folders import score_folders
from evalkit.score.results.table import read_scores
from evalkit.score.results.truth import ScoredChunk
from tests.doubles.known import known
from tests.doubles.scene import scene_chunk, scene_spec

SIZE = (48, 64)
CHUNK = scene_chunk(num_frames=4, image_hw_px=SIZE)


def _images(seed: int, change_u8: float = 60.0) -> np.ndarray:
    """Return 4,48,64,3 smooth images that change a little from frame to frame."""
    rng = np.random.default_rng(seed)
    coarse = np.random.default_rng(1000).normal(128, 50, (5, 5, 3)) + rng.normal(0, change_u8, (5, 5, 3))
    still = cv2.resize(coarse, (SIZE[1], SIZE[0]), interpolation=cv2.INTER_CUBIC)
    return np.stack([np.clip(np.roll(still, 2 * t, axis=1), 0, 255) for t in range(4)])


def _found(true: Sequence[np.ndarray], pred: Sequence[np.ndarray]) -> Mapping[str, str]:
    order = ClipOrder()
    for index, images in enumerate(zip(true, pred, strict=True)):
        rgb = [np.clip(side, 0, 255).round().astype(np.uint8)[:, None].repeat(3, axis=1) for side in images]
        chunk = replace(
            CHUNK,
            true=replace(CHUNK.true, rgb_fvhwc_u8=rgb[0]),
            predicted=replace(known(CHUNK.predicted), rgb=rgb[1]),
        )
        order.add(ScoredChunk(task="t", index=index, env=scene_spec(SIZE), chunk=chunk))
    names = {f"t/{index:04d}": f"clip{index}" for index in range(len(true))}
    return {names[key]: finding.reason for key, finding in order.findings(names)}


def _noisy(images: np.ndarray, noise_u8: float, seed: int) -> np.ndarray:
    return images + np.random.default_rng([7, seed]).normal(0, noise_u8, images.shape)


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (1, 2, 0, 3), (3, 2, 1, 0), (1, 2, 3, 0)])
def test_mixed_up_predictions_are_named(order: tuple[int, ...]) -> None:
    true = [_images(seed) for seed in range(4)]
    found = _found(true, [_noisy(true[other], 10, at) for at, other in enumerate(order)])
    assert set(found) == {f"clip{at}" for at, other in enumerate(order) if other != at}
    for at, other in enumerate(order):
        if at != other:
            assert f"the prediction of clip{at} fits the ground truth of clip{other}" in found[f"clip{at}"]


def test_one_prediction_under_two_names_is_named() -> None:
    true = [_images(seed) for seed in range(3)]
    found = _found(true, [true[0] + 3, true[0] + 3, true[2] + 3])
    assert list(found) == ["clip1"]
    assert "predictions of clip0 and clip1 have equal RGB" in found["clip1"]


@pytest.mark.parametrize("change_u8", [2.0, 10.0, 60.0])
def test_poor_models_are_not_accused(change_u8: float) -> None:
    true = [_images(seed, change_u8) for seed in range(30)]
    mean = np.mean(true, axis=0)
    cases = {
        "right": [_noisy(clip, 10, at) for at, clip in enumerate(true)],
        "noisy": [_noisy(clip, 60, at) for at, clip in enumerate(true)],
        "mean": [_noisy(mean, 3, at) for at in range(30)],
        "collapsed": [_noisy(true[0], 3, at) for at in range(30)],
        "noise": [_noisy(np.full_like(mean, 128), 50, at) for at in range(30)],
        "other scene": [_images(100 + at, change_u8) for at in range(30)],
        "drifts": [_noisy(np.concatenate([clip[:1], true[at - 1][1:]]), 3, at) for at, clip in enumerate(true)],
        "black": [np.zeros_like(mean) for _ in range(30)],
    }
    for name, pred in cases.items():
        assert not _found(true, pred), name


def test_clips_that_are_alike_may_have_equal_predictions() -> None:
    assert not _found([_images(0)] * 3, [_images(1)] * 3)


def test_the_result_file_names_mixed_up_clips(tmp_path: Path) -> None:
    true = {name: _images(seed) for seed, name in enumerate(("a", "b", "c"))}
    wrong = {"a": true["b"], "b": true["a"], "c": true["c"]}
    for side, clips in (("pred", wrong), ("true", true)):
        for name, images in clips.items():
            (tmp_path / side / name).mkdir(parents=True)
            for frame, image in enumerate(images):
                cv2.imwrite(str(tmp_path / side / name / f"{frame:04d}.png"), image.round().astype(np.uint8))
    result = score_folders(
        tmp_path / "pred", tmp_path / "true", tmp_path / "scores.parquet", options=ScoreOptions(lpips_nets=())
    )
    scores = read_scores(result)
    found = scores[scores["metric"] == "check/clip_order"]
    assert sorted(found["task"]) == ["a", "b"]
    assert set(found["status"]) == {"warning"}
