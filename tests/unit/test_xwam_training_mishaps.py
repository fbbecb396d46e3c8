"""What goes wrong around a training: lost files, broken episodes, a full disk, another recipe, a signal."""

from dataclasses import replace

import pytest
import torch

from tests.unit.test_xwam_data import RECORDING, cut_off, key_of, steps_of
from tests.unit.test_xwam_training import RECIPE, trainer_of, weights_of
from xwam.data.writer import write_episode, write_metadata
from xwam.header import read_notes
from xwam.training.curve import read_log
from xwam.training.trainer import CHECKPOINT, LOG, STATE

SHORT = replace(RECIPE, num_steps=2, warmup_steps=1, batch_size=2, save_every=1, validate_every=0)


@pytest.fixture
def root(tmp_path):
    """Return a data set of three episodes that a test may break."""
    for index in range(3):
        write_episode(tmp_path / "data", index, steps_of(index), RECORDING, instructions=["lift the cube"])
    write_metadata(tmp_path / "data")
    return tmp_path / "data"


def held_out_key(trainer):
    (key,) = trainer.data.held_out.clips.keys
    return key


# ---- lost files


def test_a_finished_run_writes_a_checkpoint_that_is_missing_or_older_than_its_state(root, tmp_path):
    trainer_of(root, tmp_path / "run", SHORT).run(stop_at=1)
    older = (tmp_path / "run" / CHECKPOINT).read_bytes()
    trainer_of(root, tmp_path / "run", SHORT).run()
    whole, state = weights_of(tmp_path / "run"), (tmp_path / "run" / STATE).read_bytes()
    for left in (None, older, b"cut off"):
        (tmp_path / "run" / CHECKPOINT).unlink()
        if left is not None:
            (tmp_path / "run" / CHECKPOINT).write_bytes(left)
        said = []
        trainer_of(root, tmp_path / "run", SHORT, said.append).run()
        assert read_notes(tmp_path / "run" / CHECKPOINT)["steps"] == "2"
        assert all(torch.equal(weight, whole[name]) for name, weight in weights_of(tmp_path / "run").items())
        assert (tmp_path / "run" / STATE).read_bytes() == state
        assert any("is missing or older than the state" in line for line in said)
    said = []
    trainer_of(root, tmp_path / "run", SHORT, said.append).run()
    assert said == ["going on from step 2"]


# ---- broken episodes


def test_a_held_out_episode_that_breaks_costs_the_validation_alone(root, tmp_path):
    recipe, said = replace(SHORT, validate_every=1, validation_share=0.1), []
    trainer = trainer_of(root, tmp_path / "run", recipe, said.append)
    cut_off(root / "video" / "a" / f"{held_out_key(trainer)}.mp4")
    trainer.run()
    assert trainer.step == 2
    assert {line["kind"] for line in read_log(tmp_path / "run" / LOG)} == {"train"}
    assert any("left out of the validation" in line for line in said)


def test_a_video_that_disappears_costs_one_episode(root, tmp_path):
    said = []
    trainer = trainer_of(root, tmp_path / "run", replace(SHORT, num_steps=6), said.append)
    (root / "depth" / "b" / f"{key_of(1)}.mp4").unlink()
    trainer.run()
    assert trainer.step == 6
    assert any(f"{key_of(1)}: {root / 'depth' / 'b' / key_of(1)}.mp4 cannot be read" in line for line in said)
