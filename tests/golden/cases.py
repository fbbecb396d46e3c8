"""What each golden file holds.

In: an empty folder to work in. Out: the text of a file.
Read next: `tests/unit/test_golden.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from evalkit.cli.main import app
from evalkit.config import load_config
from evalkit.contracts.errors import EvalkitError
from evalkit.report.write import write_report
from evalkit.run.lane import Job
from evalkit.run.runner import run_missing
from evalkit.score.chunk import ScoreOptions
from evalkit.score.results.table import read_scores
from evalkit.score.run import score_run
from evalkit.store.plan import Plan, make_plan
from evalkit.store.records import EpisodeRecord, Outcome
from evalkit.store.run_folder import HeldRun
from tests.doubles.bench import FakeBench
from tests.doubles.policy import FakePolicyPlugin
from tests.doubles.scene import write_scene_run

FOLDER = Path(__file__).parent
STABLE_FIELDS = (
    "task", "index", "seed", "instruction", "outcome", "steps", "num_chunks", "actions_sha256", "blame", "reason",
    "attempts", "clip", "video", "details", "scene", "first_state_sha256", "first_frame_sha256", "settle_steps",
    "success_after_settling", "warnings",
)  # fmt: skip
"""Fields of a record that depend neither on the clock nor on the machine."""
IMAGE_HW_PX = (24, 32)
NO_LPIPS = ScoreOptions(lpips_nets=())
OUTCOMES: tuple[Outcome, ...] = ("success", "failure", "success", "error", "skipped")
MISTAKES = (
    "plan --bench robosuit",
    "plan --policy xwan",
    "plan --policy hold --tasks Lft",
    "plan --policy hold run.wokers=2",
    "plan --policy hold run.workers=two",
    "plan --policy hold --episodes 0",
    "plan --policy xwam --tasks Lift,TwoArmLift",
    "report nowhere",
    "score run nowhere",
)


def plan(folder: Path) -> str:
    """Return the plan of two tasks, two episodes each."""
    return json.dumps(json.loads(_plan("none").to_bytes()), indent=1) + "\n"


def records(folder: Path) -> str:
    """Return the records of a run in which one env raises: outcomes, steps, hashes of actions and of first frames."""
    lines = [json.dumps(_stable(record)) for record in _run(folder, "raise")]
    return "\n".join(sorted(lines)) + "\n"


def scores(folder: Path) -> str:
    """Return the mean of every metric of a scene known in closed form, and how many values it has."""
    write_scene_run(folder / "run", outcomes=OUTCOMES, image_hw_px=IMAGE_HW_PX)
    table = read_scores(score_run(folder / "run", workers=1, options=NO_LPIPS))
    groups = table[table["value"].notna()].groupby(["subject", "metric"], sort=False)["value"]
    lines = [f'"{subject} {metric}": [{v.mean():.6g}, {len(v)}]' for (subject, metric), v in groups]
    return _scrubbed("{\n" + ",\n".join(lines) + "\n}\n", folder)


def report(folder: Path) -> str:
    """Return the Markdown report of that scene, without what depends on the clock, the machine or the versions."""
    write_scene_run(folder / "run", outcomes=OUTCOMES, image_hw_px=IMAGE_HW_PX)
    score_run(folder / "run", workers=1, options=NO_LPIPS)
    write_report([folder / "run"], folder / "report")
    return _scrubbed((folder / "report" / "report.md").read_text(), folder)


def cli_errors(folder: Path) -> str:
    """Return the sentence that each mistake on the command line gets."""
    answers = {}
    for line in MISTAKES:
        error = CliRunner().invoke(app, line.split()).exception
        assert isinstance(error, EvalkitError), f"evalkit {line}: {error!r}"
        answers[f"evalkit {line}"] = str(error)
    return json.dumps(answers, indent=1) + "\n"


CASES: dict[str, Callable[[Path], str]] = {
    "plan.json": plan,
    "records.jsonl": records,
    "scores.json": scores,
    "report.md": report,
    "cli_errors.json": cli_errors,
}


def _plan(fault: str) -> Plan:
    config = load_config(FakeBench(), FakePolicyPlugin(), [f"bench.fake.fault={fault}"])
    return make_plan(config.bench, config.policy, tasks=(), num_episodes=2)


def _run(folder: Path, fault: str) -> list[EpisodeRecord]:
    config = load_config(FakeBench(), FakePolicyPlugin(), [f"bench.fake.fault={fault}"])
    recorded: list[EpisodeRecord] = []
    with HeldRun(folder / "run", _plan(fault)) as held:
        run_missing(
            Job(folder=held, bench=config.bench, policy=config.policy.load(), settings=config.run), recorded.append
        )
    return recorded


def _stable(record: EpisodeRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in STABLE_FIELDS}


def _scrubbed(text: str, folder: Path) -> str:
    """Return the text without paths, hashes and rounding noise near zero."""
    text = text.replace(str(folder), "FOLDER")
    text = re.sub(r"(?<![\d.])[0-9a-f]{12,64}\b", "HASH", text)
    return re.sub(r"\d\S*e-(1\d|0[7-9])\b", "0", text)
