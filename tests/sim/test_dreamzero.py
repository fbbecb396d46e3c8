"""DreamZero on real physics: run, scored and reported; and minutes of training, which learn what a mean action cannot.

In: robosuite and a renderer. Out: nothing; skips with a reason where either is missing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from evalkit.dataset.layout import scan
from evalkit.store.run_folder import open_run
from xwam.checkpoints.bundle import load_bundle
from xwam.flow.sampler import Schedule
from xwam.training.clips import ClipDataset
from xwam.training.log import read_log
from xwam.training.recipes import recipe_of
from xwam.training.trainer import LOG, prepare_data
from xwam.training.validation import imagine_clips, judge

pytest.importorskip("robosuite", reason="robosuite is not installed")
ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.sim, pytest.mark.timeout(1800)]

RECIPE = ("dreamzero-nano", ["num_steps=240", "warmup_steps=15", "validation_share=0.2", "ema_decay=0.95"])


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_it_acts_imagines_is_scored_and_reported(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    plan = ["--policy", "dreamzero", "--bench", "robosuite", "--tasks", "Lift", "--episodes", "2"]
    command("evalkit.cli", "run", *plan, "bench.max_steps=16", "--out", str(folder))
    records = open_run(folder).records()
    assert [(record.outcome, record.steps, record.num_chunks) for record in records] == [("failure", 16, 2)] * 2
    command("evalkit.cli", "score", "run", str(folder))
    command("evalkit.cli", "report", str(folder))
    text = (folder / "report" / "report.md").read_text()
    for expected in ("dreamzero-nano", "step caching dynamic", "psnr", "untrained"):
        assert expected in text, expected
    assert [record.details["window_starts"] for record in records] == [{"first request": 1}] * 2


class Errors(NamedTuple):
    """Mean absolute errors of normalised actions on held-out clips."""

    model: float
    mean_action: float


def held_out_errors(data: Path, checkpoint: Path) -> Errors:
    """Return the errors of the first block of held-out clips, and those of the mean action of the training clips."""
    bundle, recipe = load_bundle(str(checkpoint)), recipe_of(*RECIPE)
    clips = prepare_data(data, scan(data), bundle, recipe)
    held_out = ClipDataset.for_model(
        data,
        {key: clips.episodes[key] for key in clips.held_out.clips.keys},  # type: ignore[union-attr]
        bundle.model,
        crop_frac=recipe.crop_frac,
        past_end=recipe.past_end,
        augmentation=None,
        exact_depth=recipe.exact_depth,
    )
    samples = [held_out[index] for index in range(0, len(held_out), 6)]
    steps = Schedule(num_video_steps=8, num_action_steps=8)
    imagined = imagine_clips(bundle, samples, steps, device=torch.device("cpu"))
    train = clips.training
    mean_K = torch.stack([train[index].action_KA[:8] for index in range(0, len(train), 6)]).mean((0, 1))
    guess = imagined._replace(action_BKA=mean_K.expand_as(imagined.action_BKA))
    return Errors(judge(imagined, samples)["action_error"], judge(guess, samples)["action_error"])


@pytest.mark.slow
def test_minutes_of_training_beat_the_mean_action(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    command("evalkit.cli", "record", str(data), "Lift=24")
    command("xwam.cli", "statistics", str(data))
    name, changes = RECIPE
    settings = ["validate_every=80", "imagined_clips=0", "save_every=240", *changes]
    command("xwam.cli", "train", str(data), str(out), "--model", "dreamzero/nano", "--recipe", name, *settings)
    losses = [row for row in read_log(out / LOG) if row["kind"] == "validation"]
    for loss in ("video", "action"):
        values = np.array([row[loss] for row in losses])
        assert (np.diff(values) < 0).all(), loss
    errors = held_out_errors(data, out / "checkpoint.safetensors")
    assert errors.model < 0.9 * errors.mean_action, errors
