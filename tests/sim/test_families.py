"""The designs next to X-WAM on every bench, with random nano weights: acted, recorded, scored, reported.

In: robosuite; RoboCasa with placeholder art; RoboTwin with the subset of its assets. Out: a verdict per design and
bench; skips with a reason where a simulator is missing.
Read next: `test_closed_loop.py` and `test_robotwin_policies.py`, the same for X-WAM; `docs/baselines.md`.

Random weights: the numbers show that the way of the data is whole, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from envs.robocasa.protocols import PROTOCOLS
from envs.robotwin.bench import PYTHON_VARIABLE, ROOT_VARIABLE
from evalkit import load_bench, load_policy, make_plan, run_plan, score_run, write_report
from evalkit.contracts.bound import BoundBench
from evalkit.contracts.manifest import write_manifest
from evalkit.score.chunk import ScoreOptions
from evalkit.score.results.coverage import nothing_to_score
from evalkit.score.results.table import read_scores
from evalkit.store.clips import ClipReader
from evalkit.store.run_folder import open_run
from tests.doubles.known import known
from tests.doubles.robotwin import LISTS
from tests.doubles.simulators import why_no_robocasa, why_no_robosuite

pytestmark = [pytest.mark.sim, pytest.mark.timeout(900)]

PREDICTED = {
    "uwm": {"rgb", "proprio"},
    "dreamzero": {"rgb"},
    "joint_attention": {"rgb", "depth", "proprio"},
    "video_in_training": set[str](),
}
"""What each design imagines (docs/baselines.md)."""

METRIC_OF = {"rgb": "psnr_db/frame_mean", "depth": "absrel/gt_mask_10m", "proprio": "ee_position_mm/euclidean"}
"""A metric that has values exactly where this is imagined."""

NUM_EPISODES = 2


@dataclass(frozen=True, kw_only=True)
class Case:
    """A bench.

    Attributes:
        why_not: Returns why it cannot run here; empty if it can.
        bench: Returns the bench with its settings, given a folder.
        task: A task that the subset of assets has.
        checkpoint: Name of random weights for it.
        mark: What the report says of the scenes.
    """

    why_not: Callable[[], str]
    bench: Callable[[Path], BoundBench]
    task: str
    checkpoint: str
    mark: str


def robocasa(folder: Path) -> BoundBench:
    """Return RoboCasa under the first protocol whose packages are here."""
    protocol = next(name for name in PROTOCOLS if not why_no_robocasa(name))
    return load_bench("robocasa", art="placeholder", protocol=protocol)


def robotwin(folder: Path) -> BoundBench:
    path = folder / "robotwin.json"
    write_manifest(path, load_bench("robotwin").plugin.read_vetted_list(LISTS / "demo_clean.json"))  # type: ignore[attr-defined]
    return load_bench("robotwin", manifest=str(path), planner="cpu", renderer="raster", shadows="off")


def why_no_robotwin() -> str:
    absent = [name for name in (ROOT_VARIABLE, PYTHON_VARIABLE) if not os.environ.get(name)]
    if absent:
        return f"RoboTwin is not here: {', '.join(absent)} not set (docs/robotwin.md)"
    return "" if LISTS.is_dir() else f"there are no vetted seeds at {LISTS}"


CASES = {
    "robosuite": Case(
        why_not=why_no_robosuite,
        bench=lambda folder: load_bench("robosuite"),
        task="Lift",
        checkpoint="random-nano",
        mark="robosuite-7/standard",
    ),
    "robocasa": Case(
        why_not=why_no_robocasa,
        bench=robocasa,
        task="CloseDrawer",
        checkpoint="random-nano-robocasa",
        mark="+placeholder-art",
    ),
    "robotwin": Case(
        why_not=why_no_robotwin,
        bench=robotwin,
        task="click_bell",
        checkpoint="random-nano-robotwin",
        mark="+cpu-planner+raster",
    ),
}


@pytest.mark.parametrize("policy_name", PREDICTED)
@pytest.mark.parametrize(
    "bench_name", ["robosuite", *(pytest.param(name, marks=pytest.mark.slow) for name in ("robocasa", "robotwin"))]
)
def test_it_acts_is_scored_and_reported(tmp_path: Path, bench_name: str, policy_name: str) -> None:
    case, out = CASES[bench_name], tmp_path / "run"
    if reason := case.why_not():
        pytest.skip(reason)
    bench, policy = case.bench(tmp_path), load_policy(policy_name, checkpoint=case.checkpoint)
    num_steps = policy.for_bench(bench_name).spec().execute_steps + 4  # a whole chunk and a part of another
    plan = make_plan(bench, policy, tasks=[case.task], num_episodes=NUM_EPISODES, max_steps=num_steps)
    run_plan(plan, bench, policy, out, max_attempts=1, settle_steps=2, start_timeout_s=300, reset_timeout_s=300)
    records = open_run(out).records()
    assert [(record.outcome, record.steps) for record in records] == [("failure", num_steps)] * NUM_EPISODES
    assert {record.num_chunks for record in records} == {2}
    assert len({record.actions_sha256 for record in records}) == NUM_EPISODES
    check_imagined(out, PREDICTED[policy_name])
    write_report([out], tmp_path / "report")
    text = (tmp_path / "report/report.md").read_text()
    for said in (case.mark, policy_name.replace("_", "-"), "random, init_seed 0: an untrained network"):
        assert said in text, said


def check_imagined(run: Path, predicted: set[str]) -> None:
    """Check that clips hold what a design imagines, and that exactly this has scores."""
    folder = open_run(run)
    if not predicted:
        assert nothing_to_score(folder.plan, folder.records())
        return
    for record in folder.records():
        with ClipReader(run / known(record.clip)) as clip:
            first = clip.read(0)
        rgb = known(first.predicted).rgb
        assert rgb.shape == first.true.rgb_fvhwc_u8.shape, "images as the env gives them"
        assert np.ptp(rgb.astype(int), axis=0).any(), "the future is not one image again and again"
    score_run(run, options=ScoreOptions(lpips_nets=()))
    scores = read_scores(run / "scores.parquet")
    ours = scores[(scores["subject"] == "policy") & scores["value"].notna()]
    assert set(ours["index"]) == set(range(NUM_EPISODES))
    assert np.isfinite(ours["value"]).all()
    scored = {kind for kind, metric in METRIC_OF.items() if metric in set(ours["metric"])}
    assert scored == predicted
