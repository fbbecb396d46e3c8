"""What goes wrong around a training: lost files, broken episodes, a full disk, another recipe, a signal."""

import json
import os
import re
import resource
import signal
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evalkit.dataset.layout import scan
from evalkit.dataset.writer import write_episode, write_metadata
from tests.doubles.recordings import RECORDING, cut_off, key_of, steps_of
from tests.doubles.training import RECIPE, TINY, model_of, small, trainer_of, weights_of
from xwam.checkpoints.bundle import load_checkpoint, save_checkpoint
from xwam.checkpoints.fresh import fresh_bundle
from xwam.checkpoints.metadata import read_notes
from xwam.cli import main
from xwam.family import NANO_MODELS
from xwam.training.log import read_log
from xwam.training.state import StateError
from xwam.training.trainer import CHECKPOINT, LOG, STATE, Trainer, prepare_data

SHORT = replace(RECIPE, num_steps=2, warmup_steps=1, batch_size=2, save_every=1, validate_every=0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a data set of three episodes that a test may break."""
    for index in range(3):
        write_episode(tmp_path / "data", index, steps_of(index), RECORDING, instructions=["lift the cube"])
    write_metadata(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Path:
    """Return a tiny checkpoint that fits the data."""
    bundle = fresh_bundle(model_of(root), seed=0)
    save_checkpoint(tmp_path / "tiny.safetensors", bundle.network, bundle.model)
    return tmp_path / "tiny.safetensors"


def held_out_key(trainer: Any) -> Any:
    (key,) = trainer.data.held_out.clips.keys
    return key


# ---- lost files


def test_a_finished_run_rewrites_a_missing_checkpoint(root: Path, tmp_path: Path) -> None:
    trainer_of(root, tmp_path / "run", SHORT).run(stop_at=1)
    older = (tmp_path / "run" / CHECKPOINT).read_bytes()
    trainer_of(root, tmp_path / "run", SHORT).run()
    whole, state = weights_of(tmp_path / "run"), (tmp_path / "run" / STATE).read_bytes()
    for left in (None, older, b"cut off"):
        (tmp_path / "run" / CHECKPOINT).unlink()
        if left is not None:
            (tmp_path / "run" / CHECKPOINT).write_bytes(left)
        said: list[str] = []
        trainer_of(root, tmp_path / "run", SHORT, said.append).run()
        assert read_notes(tmp_path / "run" / CHECKPOINT)["steps"] == "2"
        assert all(torch.equal(weight, whole[name]) for name, weight in weights_of(tmp_path / "run").items())
        assert (tmp_path / "run" / STATE).read_bytes() == state
        assert any("is missing or older than the state" in line for line in said)
    said = []
    trainer_of(root, tmp_path / "run", SHORT, said.append).run()
    assert said == ["resumes at step 2"]


# ---- broken episodes


def test_a_broken_held_out_episode_costs_only_validation(root: Path, tmp_path: Path) -> None:
    recipe = replace(SHORT, validate_every=1, validation_share=0.1)
    said: list[str] = []
    trainer = trainer_of(root, tmp_path / "run", recipe, said.append)
    cut_off(root / "video" / "a" / f"{held_out_key(trainer)}.mp4")
    trainer.run()
    assert trainer.step == 2
    assert {line["kind"] for line in read_log(tmp_path / "run" / LOG)} == {"train"}
    assert any("left out of the validation" in line for line in said)


def test_a_video_that_disappears_costs_one_episode(root: Path, tmp_path: Path) -> None:
    said: list[str] = []
    trainer = trainer_of(root, tmp_path / "run", replace(SHORT, num_steps=6), said.append)
    (root / "depth" / "b" / f"{key_of(1)}.mp4").unlink()
    trainer.run()
    assert trainer.step == 6
    assert any(f"{key_of(1)}: {root / 'depth' / 'b' / key_of(1)}.mp4 cannot be read" in line for line in said)


def test_a_run_whose_episodes_changed_says_which(root: Path, tmp_path: Path) -> None:
    trainer_of(root, tmp_path / "run", SHORT).run(stop_at=1)
    (root / "data" / f"{key_of(0)}.json").unlink()
    write_episode(root, 1, steps_of(1, 37), RECORDING, instructions=["lift the cube"])
    write_episode(root, 7, steps_of(7), RECORDING, instructions=["lift the cube"])
    write_metadata(root)
    with pytest.raises(StateError) as caught:
        trainer_of(root, tmp_path / "run", SHORT)
    assert str(caught.value).endswith(
        f"Since it started, 1 episode is gone or broken ({key_of(0)}) and 1 episode is new ({key_of(7)}) and 1 episode "
        f"is of another length ({key_of(1)}). Resuming needs the same episodes: restore them, or train in another "
        f"folder with `--start {tmp_path / 'run' / CHECKPOINT}`, which starts from the weights only."
    )


# ---- a signal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_training_after_its_step_saved(
    root: Path,
    start: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: Any,
) -> None:
    one_step, handler = Trainer._one_step, signal.getsignal(number)

    def signalled(trainer: Any, clips: Any) -> Any:
        if trainer.step == 1:
            os.kill(os.getpid(), number)
        return one_step(trainer, clips)

    monkeypatch.setattr(Trainer, "_one_step", signalled)
    arguments = small(root, tmp_path / "run", "--start", str(start))
    assert main(arguments) == 128 + number
    assert f"{number.name}: stopped after step 2, saved; the same command continues" in capsys.readouterr().out
    assert read_notes(tmp_path / "run" / CHECKPOINT)["steps"] == "2"
    assert signal.getsignal(number) == handler
    assert main(arguments) == 0
    assert "resumes at step 2" in capsys.readouterr().out
    assert read_notes(tmp_path / "run" / CHECKPOINT)["steps"] == "3"


# ---- a full disk, and what files look like


def test_training_resumes_after_a_full_disk(
    root: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, run = small(root, tmp_path / "run", "--start", str(start)), tmp_path / "run"
    assert main([*arguments, "--minutes", "0"]) == 0
    kept, log = (run / STATE).read_bytes(), (run / LOG).read_text()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))  # files cannot grow further, as on a full disk
    try:
        assert main(arguments) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    said = " ".join(capsys.readouterr().err.split())
    assert re.fullmatch(
        r"xwam: \S+\.safetensors cannot be written: .*File too large.*; training stopped after step [123]\. "
        rf"{run} keeps the state after step 1. Remove the cause; then the same command continues from there\.",
        said,
    )
    assert ((run / STATE).read_bytes(), list(tmp_path.rglob("*.partial"))) == (kept, [])
    assert (run / LOG).read_text().startswith(log)
    assert main(arguments) == 0
    assert read_notes(run / CHECKPOINT)["steps"] == "3"


def test_equal_checkpoints_are_equal_to_the_byte(start: Path, tmp_path: Path) -> None:
    network, model = load_checkpoint(start)
    notes, written = {"steps": "3", "said": 'ü "\n'}, set()
    before = os.umask(0o027)
    try:
        for index in range(8):
            path = tmp_path / f"{index}.safetensors"
            save_checkpoint(path, network, model, notes=notes)
            written.add(path.read_bytes())
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(before)
    assert len(written) == 1
    assert read_notes(path) == notes
    weights = network.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in load_file(path).items())


# ---- another recipe, other statistics


def test_a_state_of_an_earlier_version_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("xwam.training.state.VERSION", 1)
        trainer_of(root, tmp_path / "run", SHORT).run(stop_at=1)
    with pytest.raises(StateError, match=r"was written by version 1 of the training; this is version 2.*--start"):
        trainer_of(root, tmp_path / "run", SHORT)


def test_only_the_settings_that_differ_are_told(root: Path, tmp_path: Path) -> None:
    trainer_of(root, tmp_path / "run", SHORT).run(stop_at=1)
    with pytest.raises(StateError) as caught:
        trainer_of(root, tmp_path / "run", replace(SHORT, seed=5, weight_depth=0.5))
    assert str(caught.value) == (
        f"{tmp_path / 'run' / STATE} belongs to another run: its recipe.seed is 0, now it is 5; its "
        "recipe.weight_depth is 4.0, now it is 0.5. Use another folder or the same settings."
    )


@pytest.mark.parametrize(("text", "problem"), [("", "Expecting value"), ("{}", "The statistics hold no 'proprio_left")])
def test_statistics_that_cannot_be_used_are_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, problem: str
) -> None:
    (root / "statistics.json").write_text(text)
    assert main(small(root, tmp_path / "run")) == 2
    said = capsys.readouterr().err
    assert f"{root / 'statistics.json'} cannot be used: {problem}" in said
    assert f"; run `xwam statistics {root}` to replace it." in said


def test_statistics_of_other_data_are_reported_and_recorded(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NANO_MODELS, "nano", TINY)
    assert main(["statistics", str(root)]) == 0
    for folder, episodes in (("same", 3), ("other", 99)):
        content = json.loads((root / "statistics.json").read_text())
        content["about"]["episodes"] = episodes
        (root / "statistics.json").write_text(json.dumps(content))
        capsys.readouterr()
        assert main([*small(root, tmp_path / folder), "num_steps=1"]) == 0
        about = json.loads((tmp_path / folder / "run.json").read_text())["data_description"]
        outputs = (capsys.readouterr().out, about, read_notes(tmp_path / folder / CHECKPOINT)["data"])
        warning = (
            "normalised by a statistics.json of other data (99 episodes, 120 frames; here are 3 episodes, 120 frames)"
        )
        assert [warning in output for output in outputs] == [episodes == 99] * 3


def test_statistics_of_data_that_has_changed_are_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NANO_MODELS, "nano", TINY)
    assert main(["statistics", str(root)]) == 0
    path = root / "data" / f"{key_of(1)}.json"
    content = json.loads(path.read_text())
    content["proprios"]["left_ee_pos"] = [[0.0, 0.0, 9.0]] * len(content["proprios"]["left_ee_pos"])
    path.write_text(json.dumps(content))
    capsys.readouterr()
    assert main([*small(root, tmp_path / "run"), "num_steps=1"]) == 0
    assert "a statistics.json of this data before its states or actions changed" in capsys.readouterr().out


def test_episodes_too_short_for_a_clip_are_named(root: Path, tmp_path: Path) -> None:
    write_episode(root, 3, steps_of(3, count=32), RECORDING, instructions=["lift"])
    write_metadata(root)
    recipe = replace(RECIPE, past_end="leave_out", validate_every=0)
    bundle = fresh_bundle(model_of(root), seed=0)
    data = prepare_data(root, scan(root), bundle, recipe)
    assert len(data.training) == 3 * 8
    assert data.description.endswith(
        f"24 clips to train on, 0 episodes held out; left out: 1 episode of at most 32 steps, in which no clip ends "
        f"({key_of(3)}); past_end=hold would use them"
    )
    held = prepare_data(root, scan(root), bundle, replace(recipe, past_end="hold"))
    assert "no clip ends" not in held.description
    longer = bundle._replace(model=replace(bundle.model, num_actions=128, num_future_frames=32))
    with pytest.raises(ValueError, match=r"no clip to train on: .*; left out: 4 episodes of at most 128 steps"):
        prepare_data(root, scan(root), longer, recipe)
