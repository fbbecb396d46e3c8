"""Policies in RoboTwin's own scenes: the replay of the expert, two other ways to act on it, and X-WAM end to end.

In: a RoboTwin checkout, its interpreter, vetted seeds. Out: episodes, clips, scores, a report.
Read next: `baselines/expert_replay.py`; `tests/unit/test_xwam_robotwin.py`, what needs no simulator.

Planner `cpu` and the rasterizer without shadows, so no number is a RoboTwin score.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from baselines.expert_replay import (
    ARMS,
    EXPERT,
    ExpertReplayConfig,
    ExpertReplayPlugin,
    ExpertReplayPolicy,
    next_frames,
    through_the_model,
)
from baselines.floors import HoldConfig, HoldPlugin, HoldPolicy
from evalkit import load_bench, load_policy, make_plan, run_plan, score_run, write_report
from evalkit.contracts.bound import BoundBench, BoundPolicy
from evalkit.contracts.geometry import ee_pose_from_proprio
from evalkit.contracts.manifest import write_manifest
from evalkit.contracts.spec import PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest
from evalkit.report.contact_sheet import write_contact_sheet
from evalkit.score.chunk import ScoreOptions
from evalkit.score.results.table import read_scores
from evalkit.store.clips import ClipReader
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import open_run
from tests.doubles.known import known
from tests.doubles.robotwin import LISTS, needs_vetted_lists
from xwam.robots.axes import pose_actions
from xwam.robots.interfaces import INTERFACES

pytestmark = [*needs_vetted_lists(), pytest.mark.timeout(900)]

BLOCKS = "stack_blocks_two"
CLIP = f"clips/{BLOCKS}/0000.h5"

NEAR_M = 0.01
"""How close the replay stays to the expert, where each chunk begins."""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("manifest") / "robotwin.json"
    write_manifest(path, load_bench("robotwin").plugin.read_vetted_list(LISTS / "demo_clean.json"))  # type: ignore[attr-defined]
    return str(path)


def bench(manifest: str, **settings: Any) -> BoundBench:
    return load_bench("robotwin", manifest=manifest, planner="cpu", renderer="raster", shadows="off", **settings)


def run(bench: BoundBench, policy: BoundPolicy, out: Path, *, task: str, max_steps: int | None = None) -> EpisodeRecord:
    """Return the record of the first vetted episode of a task."""
    plan = make_plan(bench, policy, tasks=[task], num_episodes=1, max_steps=max_steps)
    run_plan(plan, bench, policy, out, settle_steps=2, max_attempts=1)
    (record,) = open_run(out).records()
    return record


class FollowingPolicy(ExpertReplayPolicy):
    """Replays an expert in one of three ways, and notes how far the arms are from it where each chunk begins."""

    def __init__(self, spec: PolicySpec, way: str) -> None:
        super().__init__(spec)
        self.way, self.offsets_m = way, list[float]()

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        (request,) = requests
        expert, proprio = request.observation.privileged[EXPERT], request.observation.proprio
        now = next_frames(expert, request.step_idx - 1, 1)[0]
        self.offsets_m += [float(np.linalg.norm((proprio - now)[first : first + 3])) for first in (0, 8)]
        frames = next_frames(expert, request.step_idx, self.spec.chunk_len)
        return [PolicyReply(actions=self._commands(frames, now, proprio))]

    def _commands(self, frames: np.ndarray, now: np.ndarray, proprio: np.ndarray) -> np.ndarray:
        if self.way == "absolute poses":
            return pose_actions(frames, ARMS)
        if self.way == "summed deltas":
            return through_the_model(frames, proprio)
        deltas = INTERFACES["robotwin"].model_actions(pose_actions(frames, ARMS), now, ARMS)
        return INTERFACES["robotwin"].env_actions(deltas, proprio, ARMS)


class FollowingPlugin(ExpertReplayPlugin):
    """Plugin of `FollowingPolicy`; the third way adds each delta to the measured pose, one action a request."""

    def __init__(self, way: str) -> None:
        self.way, self.made = way, list[FollowingPolicy]()

    def spec(self, config: ExpertReplayConfig) -> PolicySpec:
        spec = super().spec(config)
        return replace(spec, chunk_len=1, execute_steps=1) if self.way == "deltas on the measured pose" else spec

    def make(self, config: ExpertReplayConfig) -> FollowingPolicy:
        self.made.append(FollowingPolicy(self.spec(config), self.way))
        return self.made[-1]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["click_bell", BLOCKS])
def test_the_replay_of_an_expert_succeeds(manifest: str, tmp_path: Path, task: str) -> None:
    record = run(bench(manifest, expert=True), load_policy("expert_replay"), tmp_path, task=task)
    assert (record.outcome, record.success_after_settling) == ("success", True)
    assert 20 <= record.steps <= 300


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "outcome"),
    [("summed deltas", "success"), ("absolute poses", "success"), ("deltas on the measured pose", "failure")],
)
def test_only_deltas_on_the_measured_pose_fail(manifest: str, tmp_path: Path, way: str, outcome: str) -> None:
    plugin = FollowingPlugin(way)
    policy = BoundPolicy(plugin=plugin, config=ExpertReplayConfig())
    record = run(bench(manifest, expert=True), policy, tmp_path, task=BLOCKS, max_steps=260)
    assert record.outcome == outcome
    (made,) = plugin.made
    assert (max(made.offsets_m) < NEAR_M) == (outcome == "success"), f"up to {1000 * max(made.offsets_m):.1f} mm"


class NotingHold(HoldPlugin):
    """`hold`, which notes the states that it sees."""

    def __init__(self) -> None:
        self.states: list[np.ndarray] = []

    def make(self, config: HoldConfig) -> HoldPolicy:
        return _NotingHoldPolicy(self.spec(config), self.states)


class _NotingHoldPolicy(HoldPolicy):
    def __init__(self, spec: PolicySpec, states: list[np.ndarray]) -> None:
        super().__init__(spec)
        self._states = states

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        self._states += [request.observation.proprio for request in requests]
        return super().infer(requests)


@pytest.mark.parametrize("protocol", ["xwam", "qpos"])
def test_hold_moves_no_arm(manifest: str, tmp_path: Path, protocol: str) -> None:
    plugin = NotingHold()
    policy = BoundPolicy(plugin=plugin, config=HoldConfig())
    record = run(bench(manifest, protocol=protocol), policy, tmp_path, task="click_bell", max_steps=33)
    assert (record.outcome, record.steps) == ("failure", 33)
    np.testing.assert_allclose(plugin.states[-1], plugin.states[0], atol=2e-3)


@pytest.fixture(scope="module")
def imagined(manifest: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a scored run of X-WAM with random weights: one chunk of 32 steps, and four steps more."""
    out = tmp_path_factory.mktemp("run") / "xwam"
    policy = load_policy("xwam", checkpoint="random-nano-robotwin")
    record = run(bench(manifest), policy, out, task=BLOCKS, max_steps=36)
    assert (record.outcome, record.steps) == ("failure", 36)
    score_run(out, options=ScoreOptions(lpips_nets=()))
    return out


def test_clips_show_both_arms_and_the_three_views(imagined: Path) -> None:
    with ClipReader(imagined / CLIP) as clip:
        chunk, last = clip.read(0), clip.read(1)
    assert (len(clip.header.env_spec.cameras), last.num_executed) == (3, 4)
    predicted = known(chunk.predicted)
    assert chunk.true.rgb_fvhwc_u8.shape == predicted.rgb.shape == (8, 3, 240, 320, 3)
    assert chunk.true.depth_fvhw_m.shape == known(predicted.depth).shape == (8, 3, 240, 320)
    assert 0.05 < np.median(chunk.true.depth_fvhw_m) < 2.0, "metres"
    quats = np.stack([known(predicted.proprio)[:, first : first + 4] for first in (3, 11)])
    np.testing.assert_allclose(np.linalg.norm(quats, axis=-1), 1, atol=1e-4)


def test_wrist_cameras_are_where_the_arms_say(imagined: Path) -> None:
    """The pose of an end effector times `T_ee_cam` is the pose of its camera, in every frame."""
    with ClipReader(imagined / CLIP) as clip:
        frames, cameras = clip.read(0).true, clip.header.env_spec.cameras
    assert [camera.arm for camera in cameras] == [None, "left", "right"]
    for view, first in ((1, 0), (2, 8)):
        T_base_cam = ee_pose_from_proprio(frames.proprio_fd[:, first : first + 8]) @ np.array(cameras[view].T_ee_cam)
        np.testing.assert_allclose(T_base_cam, frames.T_base_cam_fv44[:, view], atol=1e-4)


def test_scores_cover_views_arms_and_the_fused_cloud(imagined: Path) -> None:
    scores = read_scores(imagined / "scores.parquet")
    ours = scores[(scores["subject"] == "policy") & scores["value"].notna()]
    views = {metric: set(rows["view"]) for metric, rows in ours.groupby("metric")}
    assert views["psnr_db/frame_mean_wrist"] == {"left_camera", "right_camera"}
    assert views["ee_position_mm/euclidean"] == {"left", "right"}
    assert views["psnr_db/frame_mean"] == {"head_camera"}
    assert {"fscore/10mm_10m", "chamfer_m/l1_half_10m", "absrel/gt_mask_10m"} <= set(views)
    assert [row for row in scores["metric"] if row.startswith("check/")] == [], "no remark on cameras, depth or states"


def test_the_report_says_what_the_numbers_are_not(imagined: Path, tmp_path: Path) -> None:
    write_report([imagined], tmp_path)
    text = (tmp_path / "report.md").read_text()
    for said in (
        "robotwin-50/xwam+cpu-planner+raster",
        "random",
        "no RoboTwin score",
        "ee_position_mm/euclidean",
    ):
        assert said in text


def test_sheets_show_the_blocks_in_their_colours(imagined: Path, tmp_path: Path) -> None:
    """A red and a green block stand on the table; with swapped channels one would be blue."""
    with ClipReader(imagined / CLIP) as clip:
        start = clip.read(0).true.rgb_fvhwc_u8[0, 0].reshape(-1, 3).astype(int)
    saturated = start[start.max(1) - start.min(1) > 120]
    assert set(saturated.argmax(1)) == {0, 1}, "red and green"
    with Image.open(write_contact_sheet(imagined / CLIP, tmp_path / "sheet.png")) as image:
        sheet = np.asarray(image.convert("RGB")).reshape(-1, 3)
    red = saturated[saturated.argmax(1) == 0][0]
    assert (sheet == red).all(1).any()
    assert not (sheet == red[::-1]).all(1).any()


def test_a_dry_run_gives_plan_hash_and_hours(manifest: str) -> None:
    words = ["run", "--policy", "xwam", "--bench", "robotwin", "--setting", "clean", "--tasks", BLOCKS, "--dry-run"]
    settings = ["planner=cpu", "renderer=raster", "shadows=off", f"manifest={manifest}"]
    overrides = [*(f"bench.robotwin.{setting}" for setting in settings), "bench.max_steps=2", "run.workers=2"]
    done = subprocess.run(
        [sys.executable, "-m", "evalkit.cli", *words, *overrides], capture_output=True, text=True, check=True
    )
    assert re.match(r"plan +[0-9a-f]{16}  robotwin-50/xwam", done.stdout)
    assert (
        "No checkpoint is given: plan, hash and hours are those of random weights (random-nano-robotwin)" in done.stdout
    )
    assert re.search(rf"estimate at most [\d.]+ (hours|minutes) .*{BLOCKS}/0000.*{BLOCKS}/0099", done.stdout)
