"""Training at a tiny size: what a step sees, what it does, and that a killed run leaves no trace."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evalkit.contracts.errors import EvalkitError
from evalkit.dataset.layout import scan, tracks
from evalkit.dataset.statistics import statistics
from evalkit.dataset.writer import write_episode, write_metadata
from tests.doubles.known import known
from tests.doubles.recordings import RECORDING, cut_off, key_of, steps_of
from tests.doubles.training import RECIPE, SMALL_RECIPE, TINY, first_batch, model_of, small, trainer_of, weights_of
from xwam.checkpoints.bundle import save_checkpoint
from xwam.checkpoints.fresh import fresh_bundle, fresh_network
from xwam.checkpoints.metadata import read_notes
from xwam.cli import main
from xwam.flow.losses import losses
from xwam.serving.seen import Seen
from xwam.training.augment import Augmentation
from xwam.training.batches import Encoder, clip_at, slots
from xwam.training.clips import ClipDataset
from xwam.training.latent_cache import LatentClips
from xwam.training.launch import train_model
from xwam.training.log import read_log
from xwam.training.objective import XwamObjective
from xwam.training.optim import optimizers_of, rate_at
from xwam.training.recipes import RECIPES, OptimizerKind, Recipe, RecipeError, recipe_of
from xwam.training.state import Average, StateError

pytest.importorskip("accelerate", reason="training needs Accelerate: pip install 'evalkit[train]'")
from xwam.training.trainer import CHECKPOINT, CURVE, IMAGINED, LOG, STATE, prepare_data

# ---- recipes


def test_recipes_hold_the_papers_numbers() -> None:
    pretraining, finetuning = RECIPES["pretraining"], RECIPES["robotwin"]
    assert (pretraining.batch_size, pretraining.num_steps, pretraining.learning_rate) == (2048, 40_000, 1e-4)
    assert (finetuning.batch_size, finetuning.num_steps, finetuning.learning_rate) == (128, 20_000, 3e-5)
    assert {recipe.warmup_steps for recipe in (pretraining, finetuning)} == {1000}
    assert (RECIPES["robotwin-released"].num_steps, RECIPES["robotwin-released"].warmup_steps) == (40_000, 400)
    assert all(recipe == Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) for recipe in RECIPES.values())
    assert {RECIPES[name].depth for name in RECIPES if "depth" in name} == {"none", "sequence", "channel"}


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("nanno", [], "There is no recipe 'nanno'"),
        ("nano", ["steps=3"], r"^Unknown setting 'steps'. Did you mean 'num_steps'\? Run `xwam train --recipes`"),
        ("nano", ["qqq=3"], "^Unknown setting 'qqq'.* Run `xwam train --recipes`"),
        ("nano", ["num_steps"], "'num_steps' is not an override; write key=value, for example num_steps=200"),
        ("nano", ["num_steps=many"], 'num_steps: Input should be a valid integer, got "many"'),
        ("nano", ["micro_batch=5"], "multiple of micro_batch 5"),
        ("nano", ["warmup_steps=50000"], "add warmup_steps=20000 or less"),
    ],
)
def test_recipes_refuse_what_they_do_not_know(name: str, changes: Any, reason: str) -> None:
    with pytest.raises((RecipeError, EvalkitError), match=reason):
        recipe_of(name, changes)


# ---- what a step sees


def test_every_clip_is_seen_once_a_pass() -> None:
    for first in (0, 11, 22):
        assert sorted(clip_at(3, 11, first + place) for place in range(11)) == list(range(11))
    assert [clip_at(3, 11, place) for place in range(11)] != [clip_at(3, 11, 11 + place) for place in range(11)]


def test_devices_share_a_step() -> None:
    recipe = replace(RECIPE, batch_size=8)
    whole = slots(recipe, 50, 6)
    parts = [slots(recipe, 50, 6, rank=rank, world=4) for rank in range(4)]
    assert [slot for part in parts for slot in part] == whole
    with pytest.raises(ValueError, match="3 devices of 2 clips cannot share a batch of 8"):
        slots(recipe, 50, 6, world=3)


def test_draws_belong_to_a_place_not_to_a_batch(shared_root: Path) -> None:
    trainer = trainer_of(shared_root, shared_root / "unused")
    encoder, places = trainer.encoder, slots(RECIPE, 20, 2)
    samples = [trainer.data.training[slot.clip_idx] for slot in places]
    together = encoder.draws(encoder.batch(samples), samples, places)
    alone = encoder.draws(encoder.batch(samples[2:3]), samples[2:3], places[2:3])
    one = slice(2 * RECIPE.noise_draws, 3 * RECIPE.noise_draws)
    assert torch.equal(together.noise.video_BCTVHW[one], alone.noise.video_BCTVHW)
    assert torch.equal(together.levels.sigma_video_B[one], alone.levels.sigma_video_B)
    assert torch.equal(together.text.places()[one], alone.text.places())


def test_latents_are_kept_and_equal_those_of_the_clips(shared_root: Path, tmp_path: Path) -> None:
    bundle = fresh_bundle(model_of(shared_root), seed=0)
    plain = prepare_data(shared_root, scan(shared_root), bundle, replace(RECIPE, encode_once=False)).training
    assert isinstance(plain, ClipDataset)
    kept = LatentClips(plain, bundle.codec, bundle.model.codec, tmp_path)
    encoder = Encoder(bundle, RECIPE, torch.device("cpu"))
    for _ in range(2):  # made at the first look, read at the second
        expected, found = encoder.batch([plain[35], plain[50]]), encoder.batch([kept[35], kept[50]])
        torch.testing.assert_close(found.video_BCTVHW, expected.video_BCTVHW, atol=2e-2, rtol=1e-3)
        torch.testing.assert_close(found.depth_BCTVHW, expected.depth_BCTVHW, atol=2e-2, rtol=1e-3)
        assert torch.equal(found.action_BKA, expected.action_BKA)
        assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    next(tmp_path.rglob("*.safetensors")).write_bytes(b"broken")
    with pytest.raises(ValueError, match="Delete it; the next access writes it again"):
        [kept[35], kept[50]]


def test_augmented_clips_are_not_encoded_once(shared_root: Path) -> None:
    with pytest.raises(ValueError, match="cannot be encoded once"):
        prepare_data(
            shared_root,
            scan(shared_root),
            fresh_bundle(TINY, seed=0),
            replace(RECIPE, augmentation=Augmentation()),
        )


def test_prompts_are_dropped_as_often_as_asked(shared_root: Path) -> None:
    bundle = fresh_bundle(model_of(shared_root), seed=0)
    recipe = replace(RECIPE, text_drop=0.25, noise_draws=1)
    encoder = Encoder(bundle, recipe, torch.device("cpu"))
    sample = prepare_data(shared_root, scan(shared_root), bundle, recipe).training[0]
    batch, places = encoder.batch([sample] * 200), slots(replace(recipe, batch_size=200), 9, 0)
    text = encoder.draws(batch, [sample] * 200, places).text.places()
    dropped = (text == 0).all(dim=(1, 2)).float().mean().item()
    assert dropped == pytest.approx(0.25, abs=0.1)


def test_each_sample_draws_its_prefix(shared_root: Path) -> None:
    bundle = fresh_bundle(model_of(shared_root), seed=0)
    recipe = replace(RECIPE, prefix_actions_max=4, noise_draws=2, batch_size=40)
    sample = prepare_data(shared_root, scan(shared_root), bundle, recipe).training[0]
    encoder, places = Encoder(bundle, recipe, torch.device("cpu")), slots(recipe, 9, 0)
    batch = encoder.batch([sample] * 40)
    drawn = encoder.draws(batch, [sample] * 40, places).num_clean
    assert (len(drawn), set(drawn)) == (80, {0, 1, 2, 3, 4})
    assert encoder.draws(batch, [sample] * 40, places).num_clean == drawn
    plain = Encoder(bundle, replace(recipe, prefix_actions_max=0), torch.device("cpu"))
    assert plain.draws(batch, [sample] * 40, places).num_clean == ()


# ---- what is minimised


def test_the_objective_weighs_the_losses_of_equation_6(shared_root: Path) -> None:
    trainer = trainer_of(shared_root, shared_root / "unused")
    batch, draws = first_batch(trainer)
    network = fresh_network(trainer.bundle.model.network, seed=4)
    plain = losses(network, batch, draws.noise, draws.levels, network.encode_text(draws.text))
    found = XwamObjective(network, replace(RECIPE, weight_depth=0.5))(batch, draws)
    assert found["action"].item() == plain.action.item()
    expected = plain.video + RECIPE.weight_action * plain.action + plain.proprio + 0.5 * plain.depth
    torch.testing.assert_close(found["total"], expected.reshape(()))


def test_the_spectral_loss_is_a_setting(shared_root: Path) -> None:
    trainer = trainer_of(shared_root, shared_root / "unused")
    batch, draws = first_batch(trainer)
    network = fresh_network(trainer.bundle.model.network, seed=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.fft, "rfft", None)  # a recipe without this loss transforms nothing
        without = XwamObjective(network, RECIPE)(batch, draws)
    with_it = XwamObjective(network, replace(RECIPE, weight_dct=0.5))(batch, draws)
    assert set(with_it) - set(without) == {"dct"}
    torch.testing.assert_close(with_it["total"], without["total"] + 0.5 * with_it["dct"])


def test_the_learning_rate_is_that_of_transformers() -> None:
    schedules = pytest.importorskip("transformers.optimization", reason="compares with transformers")
    for num_steps, warmup_steps in ((50, 10), (50, 0), (3, 3)):
        recipe = replace(RECIPES["robocasa-released"], num_steps=num_steps, warmup_steps=warmup_steps)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.learning_rate)
        schedule = schedules.get_cosine_schedule_with_warmup(optimizer, warmup_steps, num_steps)
        for step in range(num_steps):
            assert recipe.learning_rate * rate_at(step, recipe) == pytest.approx(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()


def test_recomputed_activations_give_the_same_gradients(shared_root: Path) -> None:
    trainer = trainer_of(shared_root, shared_root / "unused")
    batch, draws = first_batch(trainer)
    gradients = []
    for recompute in (False, True):
        network = fresh_network(trainer.bundle.model.network, seed=4)
        XwamObjective(network, replace(RECIPE, checkpointing=recompute))(batch, draws)["total"].backward()
        gradients.append([weight.grad for weight in network.parameters()])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed)


@pytest.mark.slow
def test_compiled_blocks_give_the_same_gradients(shared_root: Path) -> None:
    if shutil.which("c++") is None:
        pytest.skip("compiling for a CPU needs a C++ compiler")
    trainer = trainer_of(shared_root, shared_root / "unused")
    batch, draws = first_batch(trainer)
    gradients = []
    for compiled in (False, True):
        network = fresh_network(trainer.bundle.model.network, seed=4)
        XwamObjective(network, replace(RECIPE, compile=compiled))(batch, draws)["total"].backward()
        gradients.append([weight.grad for weight in network.parameters()])
    for plain, same in zip(*gradients, strict=True):
        torch.testing.assert_close(same, plain, rtol=1e-3, atol=1e-5)


def test_a_blind_model_is_trained_on_grey(shared_root: Path) -> None:
    bundle = fresh_bundle(replace(model_of(shared_root), blind=True), seed=0)
    data = prepare_data(shared_root, scan(shared_root), bundle, RECIPE)
    batch = Encoder(bundle, RECIPE, torch.device("cpu")).batch([data.training[0], data.training[1]])
    assert not batch.video_BCTVHW.any()
    assert not batch.depth_BCTVHW.any()
    assert batch.video_BCTVHW.shape == (2 * RECIPE.noise_draws, *bundle.model.latent_shape)
    assert batch.action_BKA.any()


def test_muon_takes_the_matrices_of_the_blocks(shared_root: Path) -> None:
    network = fresh_network(TINY.network, seed=0)
    adamw, muon = optimizers_of(network, RECIPE)
    taken = sum(len(group["params"]) for optimizer in (adamw, muon) for group in optimizer.param_groups)
    assert taken == len(list(network.parameters()))
    assert {weight.dim() for weight in muon.param_groups[0]["params"]} == {2}
    assert len(optimizers_of(network, replace(RECIPE, optimizer="adamw"))) == 1


def test_averages_by_hand() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    average = Average(network, 0.5)
    for step, value in enumerate((1.0, 1.0)):
        network.weight.data.fill_(value)
        average.update(network, step)
    assert average.weights["weight"].item() == pytest.approx(1 - 0.1 * (2 / 11))


# ---- whole runs


class Killed(Exception):
    """Stands for a kill: nothing after it is done."""


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_killed_run_ends_with_the_same_weights_to_the_bit(
    shared_root: Path, tmp_path: Path, optimizer: OptimizerKind
) -> None:
    recipe = replace(RECIPE, optimizer=optimizer)
    trainer_of(shared_root, tmp_path / "whole", recipe).run()
    stopped = trainer_of(shared_root, tmp_path / "killed", recipe)
    original = stopped._one_step

    def killed_in_the_sixth(clips: Any) -> Any:
        if stopped.step == 5:
            raise Killed
        return original(clips)

    stopped._one_step = killed_in_the_sixth  # type: ignore[method-assign]
    with pytest.raises(Killed):
        stopped.run()
    resumed = trainer_of(shared_root, tmp_path / "killed", recipe)
    assert resumed.step == 3
    resumed.run()
    whole, killed = (weights_of(tmp_path / name) for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    states = [(tmp_path / name / STATE).read_bytes() for name in ("whole", "killed")]
    assert states[0] == states[1]
    again = trainer_of(shared_root, tmp_path / "killed", recipe)
    assert again.step == recipe.num_steps
    again.run()
    assert (tmp_path / "killed" / STATE).read_bytes() == states[1]


def test_a_run_leaves_what_people_and_policies_need(shared_root: Path, tmp_path: Path) -> None:
    from xwam.policy import XwamPlugin, XwamPolicyConfig

    trainer_of(shared_root, tmp_path, replace(RECIPE, num_steps=10)).run()
    lines = read_log(tmp_path / LOG)
    kinds = ("validation", "imagined")
    expected = [(step, kind) for step in (3, 6, 9) for kind in kinds]
    assert [(line["step"], line["kind"]) for line in lines] == [*expected, (10, "train")]
    assert (tmp_path / IMAGINED).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / CURVE).read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "run.json").read_text())["data_description"].startswith("3 episodes, 120 frames")
    config = XwamPolicyConfig(checkpoint=str(tmp_path / CHECKPOINT), num_video_steps=2, num_action_steps=1)
    plugin = XwamPlugin()
    assert plugin.spec(config).views == ("static", "wrist")
    rgb = np.zeros((2, 32, 32, 3), np.uint8)
    engine = plugin.make(config).engine
    actions, _ = engine.act(engine.begin(Seen(rgb, steps_of().proprio[0], "lift the cube"), seed=0))
    assert actions.shape == (32, 14)


def test_another_run_does_not_go_on_from_this_one(shared_root: Path, tmp_path: Path) -> None:
    trainer_of(shared_root, tmp_path).run(stop_at=1)
    reason = r"to another run: its recipe.learning_rate is 0.001, now it is 1e-09. Use another folder"
    with pytest.raises(StateError, match=reason):
        trainer_of(shared_root, tmp_path, replace(RECIPE, learning_rate=1e-9))
    cut_off(tmp_path / STATE)
    with pytest.raises(StateError, match=r"cannot be read .* Delete it to train from the start, or .* `--start .*`"):
        trainer_of(shared_root, tmp_path)


def test_an_episode_that_breaks_on_the_way_is_named_once(tmp_path: Path) -> None:
    for index in range(3):
        write_episode(tmp_path, index, steps_of(index), RECORDING, instructions=["x"])
    write_metadata(tmp_path)
    said: list[str] = []
    recipe = replace(RECIPE, validate_every=0, num_steps=6, encode_once=False)
    trainer = trainer_of(tmp_path, tmp_path / "run", recipe, said.append)
    cut_off(tmp_path / "video" / "a" / f"{key_of(1)}.mp4")
    trainer.run()
    assert trainer.broken == {key_of(1)}
    (line,) = [line for line in said if "left out:" in line]  # once, however many of its clips were wanted
    assert "episode_0000001" in line


def test_training_brings_the_loss_down(tmp_path: Path) -> None:
    still = steps_of()
    still = replace(
        still, rgb=still.rgb * 0 + 90, depth=known(still.depth) * 0 + 1, proprio=still.proprio[[0] * len(still.rgb)]
    )
    for index in range(2):
        write_episode(tmp_path, index, still, RECORDING, instructions=["x"])
    write_metadata(tmp_path)
    recipe = replace(RECIPE, num_steps=40, learning_rate=1e-2, validate_every=0, save_every=40)
    trainer_of(tmp_path, tmp_path / "run", recipe).run()
    lines = read_log(tmp_path / "run" / LOG)
    assert lines[-1]["video"] + lines[-1]["depth"] < 0.25 * (lines[0]["video"] + lines[0]["depth"])  # nothing moves
    assert lines[-1]["proprio"] < 0.95 * lines[0]["proprio"]


def test_a_dry_run_saves_nothing_and_says_what_a_step_needs(tmp_path: Path) -> None:
    write_episode(tmp_path, 0, steps_of(), RECORDING, instructions=["x"])
    write_metadata(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    trainer = trainer_of(tmp_path, tmp_path / "run")
    one_step, taken = trainer._one_step, []

    def counted(clips: Any) -> Any:
        taken.append(clips)
        return one_step(clips)

    trainer._one_step = counted  # type: ignore[method-assign]
    said = trainer.try_out()
    assert len(taken) == 4
    assert "weights on 1 x cpu" in said
    assert "hours for 7 steps; at most" in said
    assert "decoded and encoded their images" in said
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    plain = replace(RECIPE, encode_once=False)
    assert "each time" not in trainer_of(tmp_path, tmp_path / "run", plain).try_out(num_steps=2)


def test_the_command_trains_and_goes_on(shared_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = fresh_bundle(model_of(shared_root), seed=0)
    save_checkpoint(tmp_path / "tiny.safetensors", bundle.network, bundle.model)
    started = bundle.network.state_dict()
    arguments = small(shared_root, tmp_path / "run", "--start", str(tmp_path / "tiny.safetensors"))
    assert main([*arguments, "--dry-run"]) == 0
    assert "hours for 3 steps" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert main([*arguments, "--minutes", "0"]) == 0  # stops after a step
    assert read_notes(tmp_path / "run" / CHECKPOINT)["steps"] == "1"
    assert main(arguments) == 0
    assert "resumes at step 1" in capsys.readouterr().out
    assert read_notes(tmp_path / "run" / CHECKPOINT)["steps"] == "3"
    assert any(not torch.equal(weight, weights_of(tmp_path / "run")[name]) for name, weight in started.items())
    assert main(arguments) == 0
    assert "resumes at step 3" in capsys.readouterr().out


def test_train_refuses_absent_statistics_and_other_cameras(shared_root: Path, tmp_path: Path) -> None:
    recipe = recipe_of("nano", SMALL_RECIPE)
    with pytest.raises(ValueError, match="run `xwam statistics"):
        train_model(shared_root, tmp_path / "run", recipe)
    (shared_root / "statistics.json").write_text(json.dumps(statistics(lambda: tracks(shared_root))))
    with pytest.raises(
        ValueError, match=r"views: the data hold \('static', 'wrist'\), the model needs \('static', 'static', 'wrist'\)"
    ):
        train_model(shared_root, tmp_path / "run", recipe)


def test_only_the_weights_that_are_named_are_trained(shared_root: Path, tmp_path: Path) -> None:
    chosen = ("proprio_decoder.", "extra_")
    trainer = trainer_of(shared_root, tmp_path, replace(RECIPE, num_steps=3, validate_every=0, train_only=chosen))
    before = {name: weight.clone() for name, weight in trainer.bundle.network.state_dict().items()}
    trainer.run()
    for name, weight in weights_of(tmp_path).items():
        assert torch.equal(weight, before[name]) != name.startswith(chosen), name
    with pytest.raises(ValueError, match="no weights whose names begin with 'depth_'"):
        trainer_of(shared_root, tmp_path / "other", replace(RECIPE, train_only=("depth_",)))
    assert recipe_of("nano", ['train_only=["head."]']).train_only == ("head.",)
