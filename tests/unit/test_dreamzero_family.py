"""DreamZero in the one trainer: recipes, levels of a step, a training that resumes, its checkpoint as a policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from baselines.dreamzero.config import DreamZeroConfig
from baselines.dreamzero.levels import BlockLevels
from baselines.dreamzero.models import NANO
from baselines.dreamzero.policy import DreamZeroPlugin, DreamZeroPolicyConfig
from baselines.dreamzero.recipes import RECIPES
from evalkit.contracts.errors import BadConfig
from evalkit.dataset.layout import scan
from tests.doubles.training import model_of as xwam_of
from xwam.checkpoints.bundle import load_bundle
from xwam.checkpoints.fresh import fresh_bundle
from xwam.config import ModelConfig
from xwam.policy import XwamPlugin, XwamPolicyConfig
from xwam.training.batches import slots
from xwam.training.launch import default_recipe
from xwam.training.log import read_log
from xwam.training.objective import XwamObjective
from xwam.training.recipes import FINETUNING, Recipe, recipe_of

pytest.importorskip("accelerate", reason="training needs Accelerate: pip install 'evalkit[train]'")
from xwam.training.trainer import CHECKPOINT, LOG, Trainer, prepare_data

TINY = DreamZeroConfig(
    width=16,
    ffn_width=32,
    num_heads=2,
    num_blocks=2,
    patch_hw=(2, 2),
    place_grid=(2, 2),
    video_prediction="clean",
    text_width=64,
    text_len=32,
    time_width=64,
    actions_per_block=8,
    guidance=0.0,
    state_hidden=16,
    action_hidden=16,
    action_slots=14,
    state_slots=16,
)
RECIPE = replace(
    RECIPES["dreamzero-nano"],
    num_steps=4,
    warmup_steps=1,
    batch_size=2,
    micro_batch=1,
    save_every=2,
    validate_every=2,
    validation_clips=1,
    validation_share=0.3,
    imagined_clips=1,
    imagined_steps=(2, 2),
)
FLASH = replace(RECIPE, noise="decoupled", video_beta=7.0, imagined_steps=(2, 1))


def model_of(root: Path, *, flash: bool = False) -> ModelConfig:
    xwam = xwam_of(root)
    network = replace(TINY, independent_levels=flash)
    changes = {"image_hw_px": xwam.image_hw_px, "views": xwam.views, "bounds": xwam.bounds}
    return replace(NANO, network=network, **changes)  # type: ignore[arg-type]


def trainer_of(root: Path, folder: Path, recipe: Recipe = RECIPE, *, flash: bool = False) -> Trainer:
    bundle = fresh_bundle(model_of(root, flash=flash), seed=0)
    data = prepare_data(root, scan(root), bundle, recipe)
    return Trainer(folder, bundle, data, recipe, say=lambda line: None)


def levels_of(trainer: Trainer) -> BlockLevels:
    places = slots(trainer.recipe, len(trainer.data.training), 0)
    samples = [trainer.data.training[place.clip_idx] for place in places]
    batch = trainer.encoder.batch(samples)
    assert batch.video_BCTVHW.shape[1:] == (48, 9, 1, 4, 4)
    assert batch.depth_BCTVHW.numel() == 0, "no depth is encoded for a model without depth"
    levels = trainer.encoder.draws(batch, samples, places).levels
    assert isinstance(levels, BlockLevels)
    return levels


def test_a_training_resumes_and_its_checkpoint_is_a_policy(shared_root: Path, tmp_path: Path) -> None:
    trainer_of(shared_root, tmp_path / "whole").run()
    trainer_of(shared_root, tmp_path / "parts").run(stop_at=2)
    trainer_of(shared_root, tmp_path / "parts").run()
    whole, parts = (load_bundle(str(tmp_path / name / CHECKPOINT)) for name in ("whole", "parts"))
    for one, two in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        assert torch.equal(one, two)
    assert whole.model == model_of(shared_root)
    rows = [row for row in read_log(tmp_path / "whole" / LOG) if row["kind"] == "imagined"]
    assert {"psnr", "action_error"} <= set(rows[0])
    config = DreamZeroPolicyConfig(checkpoint=str(tmp_path / "whole" / CHECKPOINT))
    assert DreamZeroPlugin().spec(config).chunk_len == 8
    assert DreamZeroPlugin().provenance(config)["training"].startswith("4 steps")
    with pytest.raises(BadConfig, match="is a model of the family 'dreamzero', but --policy xwam runs those of 'xwam'"):
        XwamPlugin().spec(XwamPolicyConfig(checkpoint=config.checkpoint))


def test_levels_of_a_step_follow_the_recipe(shared_root: Path, tmp_path: Path) -> None:
    coupled = levels_of(trainer_of(shared_root, tmp_path / "coupled"))
    assert torch.equal(coupled.action_BK, coupled.block_BN.repeat_interleave(8, dim=1))
    assert coupled.block_BN.shape == (2, 4)
    flash = levels_of(trainer_of(shared_root, tmp_path / "flash", FLASH, flash=True))
    assert len(set(flash.action_BK[0].tolist())) > 20
    assert flash.block_BN.mean() > coupled.block_BN.mean()


def test_a_flash_model_trains(shared_root: Path, tmp_path: Path) -> None:
    trainer_of(shared_root, tmp_path, replace(FLASH, num_steps=1, validate_every=0), flash=True).run()
    assert load_bundle(str(tmp_path / CHECKPOINT)).model.network.independent_levels  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("recipe", "flash", "message"),
    [
        (FLASH, False, r"has noise=decoupled, but this DreamZero shares its levels .*; give noise=sync, or train a"),
        (RECIPE, True, r"has noise=sync, but this DreamZero has levels of its own .* --recipe dreamzero-flash-nano"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(
    recipe: Recipe, flash: bool, message: str, shared_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        trainer_of(shared_root, tmp_path, recipe, flash=flash)


def test_recipes_hold_the_facts() -> None:
    wan = RECIPES["dreamzero-5b"]
    assert (wan.learning_rate, wan.weight_decay, wan.betas, wan.precision) == (1e-5, 1e-5, (0.95, 0.999), "bf16")
    assert (wan.warmup_steps / wan.num_steps, wan.weight_action, wan.final_lr_frac) == (0.05, 1.0, 0.0)
    assert recipe_of("dreamzero-flash-nano").video_beta == 7.0
    assert recipe_of("dreamzero-flash-nano", ["video_beta=3"]).video_beta == 3.0
    assert default_recipe("dreamzero/nano", None) == "dreamzero-nano"
    assert default_recipe("dreamzero/nano-flash", None) == "dreamzero-flash-nano"


def test_other_recipes_are_written_as_before() -> None:
    assert "video_beta" not in FINETUNING.to_json()
    for recipe in (FINETUNING, *RECIPES.values()):
        assert Recipe.from_json(recipe.to_json()) == recipe


def test_the_same_module_prepares_all_networks(shared_root: Path) -> None:
    build: Callable[..., object] = XwamObjective
    network = fresh_bundle(xwam_of(shared_root), seed=0).network
    with pytest.raises(ValueError, match="no weights whose names begin with 'nothing'"):
        build(network, replace(FINETUNING, train_only=("nothing",)))
