"""Two-stage rows: estimated depth of predicted frames, its scale, and what the result says about it.

In: inner policies that predict that nothing moves, estimators in closed form. Out: a verdict.
Read next: `baselines/two_stage/policy.py`.
"""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from baselines.two_stage.alignment import scale_of
from baselines.two_stage.estimators import depth_anything_3
from baselines.two_stage.policy import TwoStageConfig, TwoStagePlugin
from evalkit import testing
from evalkit.cli.main import app
from evalkit.config import bind_policy
from evalkit.contracts.errors import BadConfig, EvalkitError, UnknownName
from evalkit.contracts.policy import Policy
from evalkit.contracts.types import PolicyRequest, Prediction
from tests.doubles.depth_estimators import closed_form_m
from tests.doubles.known import known

STILL = "tests.doubles.faulty_policy:FaultyPlugin"
"""Predicts that nothing moves, with a depth of its own, which must not be used."""

LINEAR = "tests.doubles.depth_estimators:linear_up_to_scale"
CONFIG = TwoStageConfig(inner=STILL, estimator=LINEAR)
PLUGIN = TwoStagePlugin()


def request(policy: Policy, chunk_idx: int, *, measured_scale: float) -> PolicyRequest:
    """Return a request whose measured depth is the closed form of its images times a scale; half of it is missing."""
    plain = testing.noise_request(policy.spec, 0, chunk_idx)
    depth = np.float32(measured_scale) * closed_form_m(plain.observation.rgb)
    depth[:, ::2] = 0.0
    return replace(plain, observation=replace(plain.observation, depth=depth))


def predicted(policy: Policy, asked: PolicyRequest) -> Prediction:
    (reply,) = testing.ask(policy, asked)
    return known(reply.prediction)()


def test_scale_is_the_ratio_of_medians() -> None:
    assert scale_of(np.array([[[1.0, 2.0, 3.0]]]), np.array([[[3.0, 6.0, 9.0]]])) == 3.0
    with pytest.raises(ValueError, match="of 4 pixels none has both"):
        scale_of(np.ones((1, 2, 2)), np.zeros((1, 2, 2)))


def test_median_follows_the_current_frame() -> None:
    policy = PLUGIN.make(CONFIG)
    for chunk_idx, scale in ((0, 1.0), (1, 2.5)):
        asked = request(policy, chunk_idx, measured_scale=scale)
        future = predicted(policy, asked)
        expected = np.float32(scale) * closed_form_m(future.rgb)
        np.testing.assert_allclose(known(future.depth), expected, rtol=1e-2)  # the median of half of the pixels


def test_first_frame_keeps_the_scale_of_an_episode() -> None:
    policy = PLUGIN.make(replace(CONFIG, alignment="first_frame"))
    first = predicted(policy, request(policy, 0, measured_scale=2.0))
    later = predicted(policy, request(policy, 1, measured_scale=5.0))
    ratios = [known(future.depth) / closed_form_m(future.rgb) for future in (first, later)]
    np.testing.assert_allclose(ratios[0], 2.0, rtol=1e-2)
    np.testing.assert_allclose(ratios[1], ratios[0].mean(), rtol=1e-5)
    again = predicted(policy, request(policy, 0, measured_scale=3.0))
    np.testing.assert_allclose(known(again.depth) / closed_form_m(again.rgb), 3.0, rtol=1e-2)
    policy.reset("late", testing.env_for(policy.spec))
    late = replace(request(policy, 1, measured_scale=1.0), episode_id="late")
    with pytest.raises(EvalkitError, match="was not asked at the first step of an episode"):
        testing.ask(policy, late)


def test_metres_need_no_alignment_and_are_not_scaled() -> None:
    config = replace(CONFIG, estimator="tests.doubles.depth_estimators:linear_in_metres", alignment="none")
    policy = PLUGIN.make(config)
    future = predicted(policy, request(policy, 0, measured_scale=9.0))
    np.testing.assert_allclose(known(future.depth), closed_form_m(future.rgb), rtol=1e-6)
    with pytest.raises(BadConfig, match="alignment=none needs an estimator that gives metres; linear"):
        PLUGIN.spec(replace(CONFIG, alignment="none"))


def test_a_scene_without_depth_is_refused() -> None:
    policy = PLUGIN.make(CONFIG)
    asked = request(policy, 0, measured_scale=0.0)
    with pytest.raises(EvalkitError, match=r"cannot align its depth: of .* pixels none has both"):
        predicted(policy, asked)


def test_the_result_names_estimator_and_alignment() -> None:
    spec, facts = PLUGIN.spec(CONFIG), PLUGIN.provenance(CONFIG)
    assert spec.policy_id == "two_stage/faulty+linear-median"
    assert spec.predicts == ("rgb", "depth", "proprio")
    assert facts["depth"].startswith(
        "two-stage: linear, alignment one scale per request: measured over estimated median"
    )
    assert facts["inner policy"] == f"{STILL}; its own depth is not used"
    assert facts["weights"] == "none"


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"inner": "hold"}, BadConfig, "inner=hold predicts no RGB"),
        ({"inner": "two_stage"}, BadConfig, "must be another policy than two_stage"),
        ({"alignment": "future"}, BadConfig, "policy.two_stage.alignment must be"),
        ({"estimator": "da4"}, UnknownName, "Unknown depth estimator 'da4'. Did you mean 'da3'"),
        ({"estimator": "no_such:thing"}, BadConfig, "'no_such:thing' cannot be imported"),
        ({"inner": "xwam", "inner_settings": ("chekpoint=nano",)}, UnknownName, "Did you mean 'xwam.checkpoint'"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        PLUGIN.spec(replace(CONFIG, **changes))


def test_settings_reach_the_inner_policy() -> None:
    config = TwoStageConfig(
        inner="xwam", inner_settings=("checkpoint=random-nano", "execute_steps=16"), estimator="plane"
    )
    spec = PLUGIN.for_bench("robosuite").spec(config)
    assert spec.execute_steps == 16
    assert spec.policy_id == "two_stage/xwam/xwam-nano-random+plane-median"


def test_depth_anything_gives_metres_by_the_focal_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in of the documented API, because its weights cannot be here: raw depth 2 in images of 504 x 252."""
    asked: list[Any] = []

    class Network:
        def to(self, device: str) -> Any:
            return self

        def eval(self) -> Any:
            return self

        def inference(self, images: list[np.ndarray]) -> Any:
            asked.append(images)
            return SimpleNamespace(depth=np.full((len(images), 252, 504), 2.0, np.float32))

    api = ModuleType("depth_anything_3.api")
    api.DepthAnything3 = SimpleNamespace(from_pretrained=lambda model: Network())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "depth_anything_3", ModuleType("depth_anything_3"))
    monkeypatch.setitem(sys.modules, "depth_anything_3.api", api)
    monkeypatch.setattr("baselines.two_stage.estimators.find_spec", lambda name: api)
    images, intrinsics = np.zeros((2, 64, 128, 3), np.uint8), np.tile(np.diag([100.0, 100.0, 1.0]), (2, 1, 1))
    intrinsics[1, :2] *= 2
    metric = depth_anything_3("depth-anything/DA3METRIC-LARGE")
    depth = metric.load("cpu")(images, intrinsics)
    assert depth.shape == (2, 64, 128)
    np.testing.assert_allclose(depth[0], 2.0 * 100.0 * 504 / 128 / 300, rtol=1e-6)
    np.testing.assert_allclose(depth[1], 2 * depth[0], rtol=1e-6)
    nested, relative = (
        depth_anything_3("depth-anything/DA3NESTED-GIANT-LARGE"),
        depth_anything_3("depth-anything/DA3-LARGE"),
    )
    assert (metric.in_metres, nested.in_metres, relative.in_metres) == (True, True, False)
    np.testing.assert_array_equal(nested.load("cpu")(images, intrinsics), 2.0)
    assert len(asked[0]) == 2


def test_its_ceiling_is_that_of_the_inner_codec() -> None:
    inner = ("checkpoint=random-nano", "num_video_steps=2", "num_action_steps=1")
    config = TwoStageConfig(inner="xwam", inner_settings=inner, estimator="plane")
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 128, 128, 3), dtype=np.uint8)
    states = np.tile(np.array([0.4, 0, 1, 1, 0, 0, 0, 1] + [0] * 8, np.float32), (8, 1))
    future = Prediction(rgb=images, depth=np.ones(images.shape[:4], np.float32), proprio=states)
    ceiling = PLUGIN.codec(config)(future)
    expected = bind_policy("xwam", [f"policy.xwam.{setting}" for setting in inner])
    own: Any = expected.plugin
    np.testing.assert_array_equal(ceiling.rgb, own.codec(expected.config)(future).rgb)
    assert ceiling.depth is None
    loaded = PLUGIN.make(config)
    np.testing.assert_array_equal(known(loaded.round_trip)(future).rgb, ceiling.rgb)
    assert PLUGIN.make(CONFIG).round_trip is None
    with pytest.raises(EvalkitError, match="FaultyPlugin' offers no codec"):
        PLUGIN.codec(CONFIG)


def test_an_absent_package_is_named() -> None:
    bound = bind_policy("two_stage", ["policy.two_stage.inner=xwam"])
    with pytest.raises(BadConfig, match="lacks depth_anything_3; install Depth Anything 3 from its own repository"):
        bound.require()


def test_it_keeps_the_contract() -> None:
    overrides = [f"policy.two_stage.inner='{STILL}'", "policy.two_stage.estimator=plane"]
    verdicts = list(testing.judge(testing.policy_checks(bind_policy("two_stage", overrides))))
    assert {verdict.state for verdict in verdicts if verdict.name != "steps"} == {"passed"}, verdicts


def test_a_run_is_scored_and_reported(tmp_path: Path) -> None:
    words = ["run", "--policy", "two_stage", "--bench", "tests.doubles.bench:FakeBench", "--tasks", "Near"]
    words += ["--episodes", "1", "--out", str(tmp_path / "run"), "policy.two_stage.estimator=plane"]
    words += ["policy.two_stage.inner='tests.doubles.policy:FakePolicyPlugin'", "bench.max_steps=8"]
    for each in (
        words,
        ["score", "run", str(tmp_path / "run"), "--lpips", "none", "--workers", "1"],
        ["report", str(tmp_path / "run")],
    ):
        result = CliRunner().invoke(app, each)
        assert result.exit_code == 0, (result.output, result.exception)
    report = (tmp_path / "run/report/report.md").read_text()
    assert "two-stage: plane, alignment one scale per request" in report
    assert "two_stage/fake+plane-median" in (tmp_path / "run/plan.json").read_text()
