"""What `xwam train` and `xwam train-decoder` take, refuse and write down."""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from evalkit.contracts.errors import EvalkitError
from evalkit.dataset.layout import scan
from tests.doubles.pixels import SMALL, recorded
from xwam.checkpoints.bundle import load_bundle, save_checkpoint
from xwam.checkpoints.fresh import fresh_bundle
from xwam.checkpoints.metadata import read_notes
from xwam.cli import main
from xwam.training.augment import Augmentation
from xwam.training.launch import decoder_trainings
from xwam.training.recipes import RECIPES, Recipe, RecipeError, recipe_of
from xwam.training.trainer import data_sha256

WEIGHTS_README = Path(__file__).parents[2] / "xwam" / "nano" / "weights" / "README.md"


# ---- recipes


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("optimizer=moun", "optimizer: Input should be 'adamw' or 'muon', got \"moun\"."),
        ("noise=snyc", "noise: Input should be 'ans', 'decoupled', 'sync' or 'sync-beta', got \"snyc\"."),
        ("past_end=holdd", "past_end: Input should be 'leave_out' or 'hold', got \"holdd\"."),
        ("depth=foo", "depth: Input should be 'interleaved', 'none', 'sequence' or 'channel', got \"foo\"."),
        ("precision=fp16", "precision: Input should be 'no' or 'bf16', got \"fp16\"."),
        ("num_steps=1.5", "num_steps: Input should be a valid integer, got 1.5."),
        ("num_steps=1e3", "num_steps: Input should be a valid integer, got 1000.0."),
        ("num_steps=inf", "num_steps: Input should be a valid integer, got Infinity."),
        ("train_only=head", 'train_only: Input should be a valid array, got "head".'),
        ('train_only=[""]', 'train_only.0: String should have at least 1 character, got "".'),
        ("micro_batch=0", "micro_batch: Input should be greater than or equal to 1, got 0."),
        ("save_every=0", "save_every: Input should be greater than or equal to 1, got 0."),
        ("seed=true", "seed: Input should be a valid integer, got true."),
        ("blind=yes", 'blind: Input should be a valid boolean, got "yes".'),
        ("name=3", "name: Input should be a valid string, got 3."),
        ("learning_rate=NaN", "learning_rate: Input should be a finite number, got NaN."),
        ("start_frac=-0.1", "start_frac: Input should be greater than or equal to 0, got -0.1."),
        ("imagined_steps=[3]", "imagined_steps.1: Field required, got [3]."),
        ("betas=0.9", "betas: Input should be a valid array, got 0.9."),
        ("augmentation={foo:1}", "augmentation.foo: Unexpected keyword argument, got 1."),
        ("augmentation={hue:x}", 'augmentation.hue: Input should be a valid number, got "x".'),
        ("micro_batch=3", "batch_size 16 must be a multiple of micro_batch 3."),
    ],
)
def test_values_of_another_type_are_refused_in_one_sentence(change: str, reason: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_of("nano", [change])
    assert reason in str(caught.value)


def test_values_are_taken_as_their_settings_have_them() -> None:
    recipe = recipe_of(
        "robocasa", ["num_steps=2000", "betas=[0.9,0.95]", "augmentation={hue:0.1}", "weight_depth=2", "depth=none"]
    )
    assert (recipe.num_steps, type(recipe.num_steps)) == (2000, int)
    assert (recipe.betas, recipe.weight_depth, recipe.depth) == ((0.9, 0.95), 2, "none")
    assert recipe.augmentation == Augmentation(hue=0.1)
    assert recipe_of("robocasa", ["augmentation=null", "depth=null"]).augmentation is None
    assert recipe_of("nano", ["train_only=[head.,extra_]"]).train_only == ("head.", "extra_")
    assert recipe_of("robocasa", ["augmentation.hue=0.2"]).augmentation == Augmentation(hue=0.2)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("num_steps", "'num_steps' is not an override; write key=value, for example num_steps=200"),
        ("augmentation.huw=1", "Unknown setting 'augmentation.huw'. Did you mean 'augmentation.hue'?"),
        ("augmentation={huw:1}", "Cannot apply augmentation={huw:1}: Key 'huw' is not in struct."),
    ],
)
def test_text_that_is_no_override_gets_one_sentence(change: str, sentence: str) -> None:
    with pytest.raises(EvalkitError, match=re.escape(sentence)):
        recipe_of("robocasa", [change])


def test_recipes_come_back_from_json() -> None:
    for recipe in RECIPES.values():
        assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_the_changes_that_nano_was_trained_with_are_taken() -> None:
    lines = WEIGHTS_README.read_text().replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("xwam train ")]
    changes = [[word for word in command if "=" in word] for command in words]
    assert len(changes) > 1
    assert all(changes)
    for given in changes:
        recipe_of("nano", [change for change in given if change != "..."])


def test_the_command_lists_recipes_and_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipe", "robotwin-released", "--recipes"]) == 0
    said = capsys.readouterr().out
    assert all(f"{name} " in said for name in RECIPES)
    assert "micro_batch: Clips per forward pass of one device" in said
    assert "    num_steps=40000\n" in said
    assert main(["train", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--recipes lists all" in said
    assert "--recipes lists the keys" in said
    assert "Take four steps, save nothing" in said


@pytest.mark.parametrize("package", ["accelerate", "matplotlib", "skimage"])
def test_a_missing_package_is_known_before_anything_is_read(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["train", str(tmp_path / "nothing"), str(tmp_path / "run")]) == 2
    assert f"xwam: Training needs {package}: pip install -e '.[train]'." in capsys.readouterr().err


# ---- what a decoder's training writes down


def trained_on(root: Path, start: Any, out: Any) -> dict[str, str]:
    assert main(["train-decoder", str(root), str(start), str(out), "--steps", "2", "--episodes", "1"]) == 0
    return read_notes(out)


def test_every_training_of_a_decoder_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["xwam", "train-decoder", "data"])
    roots = [recorded(tmp_path / "one"), recorded(tmp_path / "two", 1)]
    paths = [tmp_path / f"{name}.safetensors" for name in ("start", "once", "twice", "old", "on")]
    start, once, twice, old, on = paths
    network = fresh_bundle(SMALL, seed=0).network
    save_checkpoint(start, network, SMALL, notes={"steps": "7", "decoder_command": "of one left behind"})
    trained_on(roots[0], start, once)
    notes = trained_on(roots[1], once, twice)
    hashes = [data_sha256(root, scan(root).lengths) for root in roots]
    trainings = [{"command": "xwam train-decoder data", "steps": 2, "data_sha256": sha256} for sha256 in hashes]
    assert hashes[0] != hashes[1]
    assert decoder_trainings(notes) == trainings
    assert {name: notes[name] for name in ("steps", "decoder_steps")} == {"steps": "7", "decoder_steps": "4"}
    assert "decoder_command" not in notes
    assert main(["show", str(twice)]) == 0
    assert f"decoder_trainings: {json.dumps(trainings)}" in capsys.readouterr().out

    bundle = load_bundle(str(twice))
    before = {"steps": "7", "decoder_command": "xwam train-decoder a b c", "decoder_steps": "30"}
    save_checkpoint(old, bundle.network, bundle.model, decoder=bundle.decoder, notes=before)
    notes = trained_on(roots[1], old, on)
    first = {"command": "xwam train-decoder a b c", "steps": 30, "data_sha256": None}
    assert decoder_trainings(notes) == [first, trainings[1]]
    assert notes["decoder_steps"] == "32"

    assert main(["average", str(start), str(twice), str(tmp_path / "between")]) == 0
    left = read_notes(tmp_path / "between")
    assert left["steps"] == "7"
    assert not any(name.startswith("decoder_") for name in left)


def test_the_hash_of_data_is_that_of_its_episodes_in_order(tmp_path: Path) -> None:
    root = recorded(tmp_path / "data")
    keys = list(scan(root).lengths)
    assert data_sha256(root, keys) == data_sha256(root, keys[::-1]) != data_sha256(root, keys[:1])
