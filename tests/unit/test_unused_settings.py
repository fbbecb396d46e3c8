"""Settings of a recipe without effect: which they are, by computing losses with and without a change; their refusal."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from baselines.joint_attention.config import TwoStreamConfig
from tests.doubles.training import small
from xwam.checkpoints.fresh import fresh_bundle
from xwam.cli import main
from xwam.config import ModelConfig
from xwam.families import family_of, model_named, names
from xwam.flow.losses import Batch
from xwam.training.batches import Draws, Encoder, Slot
from xwam.training.recipes import Recipe, RecipeError, recipe_of
from xwam.training.unused import refuse_unused

LEVELS = {"video_beta": 3.0, "clean_action_frac": 0.6, "start_frac": 0.4}
WEIGHTS = {"weight_action": 7.0, "weight_proprio": 7.0, "weight_depth": 7.0, "weight_dct": 7.0}

TRAININGS = [
    ("xwam/nano", "nano", []),
    ("xwam/nano", "nano", ["depth=none"]),
    ("xwam/nano", "nano", ["noise=sync"]),
    ("uwm/nano", "uwm-nano", []),
    ("dreamzero/nano", "dreamzero-nano", []),
    ("dreamzero/nano-flash", "dreamzero-flash-nano", []),
    ("joint_attention/nano", "joint_attention-nano", []),
    ("joint_attention/nano", "joint_attention-nano", ["noise=ans"]),
    ("video_in_training/nano", "video_in_training-nano", []),
]


def batch_of(model: ModelConfig, count: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    _, *cells = model.latent_shape
    video = torch.randn(count, 48, *cells, generator=generator)
    action = torch.randn(count, model.num_actions, 14, generator=generator)
    proprio = torch.randn(count, 1 + model.num_future_frames, 16, generator=generator)
    return Batch(
        video_BCTVHW=video,
        depth_BCTVHW=video.flip(0) if model.network.depth != "none" else video[:, :0],
        action_BKA=action,
        proprio_BPS=proprio,
        action_mask_BKA=torch.ones_like(action),
        proprio_mask_BPS=torch.ones_like(proprio),
        executed_BKA=action,
    )


def draws_of(bundle: Any, recipe: Recipe, batch: Batch) -> Draws:
    count = len(batch.action_BKA)
    samples: list[Any] = [SimpleNamespace(instruction="lift")] * count
    return Encoder(bundle, recipe, torch.device("cpu")).draws(batch, samples, [Slot(0, at, 0) for at in range(count)])


@torch.no_grad()
def loss_of(bundle: Any, recipe: Recipe, batch: Batch, draws: Draws) -> float:
    objective = family_of(bundle.model.family).objective(bundle.network, recipe)
    return float(objective(batch, draws)["total"])


@pytest.mark.parametrize(("name", "recipe_name", "changes"), TRAININGS)
def test_unused_settings_are_those_without_effect(name: str, recipe_name: str, changes: list[str]) -> None:
    recipe, model = recipe_of(recipe_name, changes), model_named(name)
    model = replace(model, network=replace(model.network, depth=recipe.depth or model.network.depth))
    bundle = fresh_bundle(model, seed=0)
    with torch.no_grad():  # fresh networks predict zeros, which a spectrum or a state may not notice
        for weight in bundle.network.parameters():
            weight.add_(0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    unused = set()
    many, one = (batch_of(model, count) for count in (48, 1))
    plain = draws_of(bundle, recipe, many).levels
    for setting, value in LEVELS.items():
        changed = draws_of(bundle, replace(recipe, **{setting: value}), many).levels  # type: ignore[arg-type]
        if all(torch.equal(*pair) for pair in zip(plain, changed, strict=True)):
            unused.add(setting)
    acting = replace(recipe, clean_action_frac=0.0, start_frac=0.0)
    draws = draws_of(bundle, acting, one)
    before = loss_of(bundle, recipe, one, draws)
    for setting, value in WEIGHTS.items():
        if loss_of(bundle, replace(recipe, **{setting: value}), one, draws) == before:  # type: ignore[arg-type]
            unused.add(setting)
    two_streams = isinstance(model.network, TwoStreamConfig)  # their losses know prefixes, their policies do not
    if two_streams or loss_of(bundle, recipe, one, replace(draws, num_clean=(5,))) == before:
        unused.add("prefix_actions_max")
    assert unused == family_of(model.family).unused_settings(model, recipe)


@pytest.mark.parametrize("name", [f"{family}/{model}" for family in names() for model in family_of(family).models])
def test_default_recipes_are_accepted_as_they_are(name: str) -> None:
    model = model_named(name)
    recipe = recipe_of(family_of(model.family).default_recipe(model))
    refuse_unused(recipe, model, started=model.on_wan)
    assert ("nano" in recipe.name) != model.on_wan, "by size"
    assert (recipe.batch_size == 128) == model.on_wan


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("uwm/nano", "weight_depth=2", r"weight_depth=2\.0 has no effect: the objective of uwm-nano does .*at 4\.0\."),
        ("uwm/nano", "weight_dct=2", r"weight_dct=2\.0 has no .* Leave it at 0\.0\. It has an effect in nano, joint_"),
        ("uwm/nano", "video_beta=7", r"It has an effect in dreamzero-flash-nano, dreamzero-flash-5b\.$"),
        ("dreamzero/nano", "video_beta=3", r"video_beta=3\.0 has no effect: the objective of dreamzero-nano does not"),
        ("dreamzero/nano", "start_frac=0.1", r"start_frac=0\.1 has no effect: .* Leave it at 0\.0\. It has an"),
        ("dreamzero/nano", "weight_proprio=0.1", r"weight_proprio=0\.1 has no effect: .* Leave it at 1\.0"),
        ("xwam/nano", "video_beta=3", r"It has an effect in dreamzero-flash-nano"),
    ],
)
def test_a_change_without_effect_is_refused(name: str, changes: str, reason: str) -> None:
    model = model_named(name)
    with pytest.raises(RecipeError, match=reason):
        refuse_unused(recipe_of(family_of(model.family).default_recipe(model), [changes]), model, started=False)


def test_an_effect_depends_on_other_settings() -> None:
    model = model_named("xwam/nano")
    refuse_unused(recipe_of("nano", ["clean_action_frac=0.4"]), model, started=False)
    with pytest.raises(RecipeError, match=r"clean_action_frac=0\.4 has no effect: .*\(noise=sync, depth=interleaved\)"):
        refuse_unused(recipe_of("nano", ["clean_action_frac=0.4", "noise=sync"]), model, started=False)
    refuse_unused(recipe_of("nano", ["weight_depth=2"]), model, started=False)
    with pytest.raises(RecipeError, match=r"weight_depth=2\.0 has no effect: .*depth=none"):
        refuse_unused(recipe_of("nano", ["weight_depth=2", "depth=none"]), model, started=False)
    with pytest.raises(RecipeError, match=r"least_action=0\.1 has no effect with --start: a checkpoint keeps"):
        refuse_unused(recipe_of("nano", ["least_action=0.1"]), model, started=True)


def test_the_command_refuses_before_it_reads_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = small(tmp_path / "no-data", tmp_path / "out", "--model", "uwm/nano", "weight_depth=1")
    assert main(command) != 0
    printed = capsys.readouterr()
    assert "recipe uwm-nano (default of uwm/nano): 3 steps of 2 clips, learning rate 0.001" in printed.out
    assert "weight_depth=1.0 has no effect" in printed.err
