"""The slot for estimators of depth: alignments, subjects, refusals.

In: estimators that need no weights. Out: a verdict.
Read next: `evalkit/score/sources/depth_estimator.py`.
"""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evalkit.contracts.errors import BadConfig, UnknownName
from evalkit.score.chunk import ScoreOptions, score_chunk
from evalkit.score.results.outcome import ImageKey, Measure
from evalkit.score.sources import depth_estimator
from tests.doubles.known import known
from tests.doubles.scene import scene_chunk, scene_spec

SIZE = (24, 32)
CHUNK = scene_chunk(num_frames=2, image_hw_px=SIZE)
TRUE = CHUNK.true.depth_fvhw_m


def perfect_up_to_scale() -> Any:
    return lambda images: TRUE.reshape(-1, *SIZE) * np.float32(0.4)


def _options(text: Any) -> Any:
    return ScoreOptions(references=False, lpips_nets=(), depth_estimator=depth_estimator.parse_choice(text))


def test_estimated_depth_has_a_subject_of_its_own() -> None:
    rgb_only = replace(CHUNK, predicted=replace(known(CHUNK.predicted), depth=None))
    scores = score_chunk(rgb_only, scene_spec(SIZE), _options("plane/median"))
    assert {s.subject for s in scores} == {"policy", "policy+plane/median", "truth+plane/median"}
    values = [s.value for s in scores if s.subject == "policy+plane/median" and s.metric == "absrel/gt_mask_10m"]
    median = np.median(TRUE[TRUE > 0])
    expected = [np.mean(np.abs(median - TRUE[f, v]) / TRUE[f, v]) for f in range(2) for v in range(2)]
    assert values == pytest.approx(expected, rel=1e-6)
    assert not [s for s in scores if s.subject == "policy" and s.metric.startswith("absrel")]
    assert [s for s in scores if s.subject == "policy+plane/median" and s.metric == "chamfer_m/l1_half_10m"]


@pytest.mark.parametrize(("alignment", "absrel"), [("metric", 0.6), ("median", 0.0), ("affine_disparity", 0.0)])
def test_alignments_do_what_they_say(monkeypatch: pytest.MonkeyPatch, alignment: str, absrel: float) -> None:
    monkeypatch.setitem(sys.modules, "estimators_of_the_test", sys.modules[__name__])
    scores = score_chunk(CHUNK, scene_spec(SIZE), _options(f"estimators_of_the_test:perfect_up_to_scale/{alignment}"))
    (subject,) = {s.subject for s in scores if s.subject.startswith("truth+")}
    assert subject.endswith(f"/{alignment}")
    values = [s.value for s in scores if s.subject == subject and s.metric == "absrel/gt_mask_10m"]
    assert values == pytest.approx([absrel] * 4, abs=1e-6)


def test_an_estimator_that_is_not_there_is_named() -> None:
    gone = depth_estimator.EstimatorChoice(name="no_such_module:thing", alignment="metric")
    options = ScoreOptions(references=False, lpips_nets=(), depth_estimator=gone)
    scores = score_chunk(CHUNK, scene_spec(SIZE), options)
    (row,) = [s for s in scores if s.subject.startswith("policy+")]
    assert (row.value, row.status) == (None, "unavailable")
    with pytest.raises(UnknownName, match="alignment"):
        depth_estimator.parse_choice("plane/medan")


def test_an_unknown_estimator_is_refused_before_scoring() -> None:
    with pytest.raises(UnknownName, match=r"Unknown depth estimator 'plan'. Did you mean 'plane'"):
        depth_estimator.parse_choice("plan/median")
    with pytest.raises(depth_estimator.EstimatorUnavailable, match="'no_such_module:thing' is unavailable, because"):
        depth_estimator.parse_choice("no_such_module:thing/metric")


def failing() -> Any:
    return lambda images: 1 / 0


def of_the_seen_images() -> Any:
    """Return an estimator that gives the ground truth, and nonsense where an image is black."""
    return lambda images: np.where(images.any(axis=(1, 2, 3))[:, None, None], TRUE.reshape(-1, *SIZE), 50.0)


def test_a_failed_estimator_is_named_and_costs_no_other_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "estimators_of_the_test", sys.modules[__name__])
    scores = score_chunk(CHUNK, scene_spec(SIZE), _options("estimators_of_the_test:failing/metric"))
    (row,) = [s for s in scores if s.subject.startswith("policy+")]
    assert (row.value, row.status) == (None, "unavailable")
    assert row.reason.endswith("ZeroDivisionError: division by zero")
    assert any(s.subject == "policy" and s.value is not None for s in scores)


def test_images_that_cannot_be_seen_get_no_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "estimators_of_the_test", sys.modules[__name__])
    broken = known(CHUNK.predicted).rgb.copy()
    broken[1, 0] = 0
    chunk = replace(CHUNK, predicted=replace(known(CHUNK.predicted), rgb=broken, depth=None))
    problems = {ImageKey("rgb", 1, 0): Measure(None, "unreadable")}
    options = _options("estimators_of_the_test:of_the_seen_images/median")
    scores = score_chunk(chunk, scene_spec(SIZE), options, problems=problems)
    depths = [s for s in scores if s.subject.startswith("policy+") and s.metric == "absrel/gt_mask_10m"]
    said = {(s.frame_idx, s.view): s.value if s.status == "ok" else s.status for s in depths}
    assert said == pytest.approx({(0, "front"): 0, (0, "side"): 0, (1, "front"): "unreadable", (1, "side"): 0})


def test_rgb_of_another_size_gets_no_depth() -> None:
    small = replace(known(CHUNK.predicted), rgb=np.zeros((2, 3, 12, 16, 3), np.uint8), depth=None)
    scores = score_chunk(replace(CHUNK, predicted=small), scene_spec(SIZE), _options("plane/median"))
    depths = [s for s in scores if s.subject.startswith("policy+") and s.metric == "absrel/gt_mask_10m"]
    assert {(s.status, s.value) for s in depths} == {("wrong_size", None)}


@pytest.mark.skipif("depth_anything_3" in sys.modules, reason="Depth Anything 3 is installed")
def test_depth_anything_says_what_it_lacks() -> None:
    with pytest.raises(depth_estimator.EstimatorUnavailable, match="Depth Anything 3 is unavailable, because"):
        depth_estimator.load("da3")


def test_depth_anything_gives_metres_only_with_nested_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVALKIT_DA3", raising=False)
    with pytest.raises(BadConfig, match="needs a model that gives metres; depth-anything/DA3METRIC-LARGE does"):
        depth_estimator.parse_choice("da3/metric")
    assert depth_estimator.parse_choice("da3/median").label == "da3/median"
    monkeypatch.setenv("EVALKIT_DA3", "depth-anything/DA3NESTED-GIANT-LARGE")
    assert depth_estimator.parse_choice("da3/metric").label == "da3/metric"
