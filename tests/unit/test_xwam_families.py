"""Families of models: found by name, equal for checkpoints without a family, refused where they do not fit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.contracts.errors import BadConfig
from xwam.checkpoints.bundle import load_bundle, save_checkpoint
from xwam.checkpoints.fresh import fresh_bundle
from xwam.checkpoints.hub import locate
from xwam.checkpoints.metadata import CheckpointError, read_model
from xwam.config import NANO, ModelConfig
from xwam.families import at_robotwin, family_of, model_from_json, model_named, names
from xwam.policy import XwamPlugin, XwamPolicyConfig
from xwam.training.launch import default_recipe, train_model


def test_xwam_comes_first_and_knows_its_models() -> None:
    assert names()[0] == "xwam"
    assert family_of("xwam").models["nano"] == NANO == model_named("xwam/nano")
    assert locate("nano") == locate("xwam/nano") == family_of("xwam").shipped["nano"]


def test_every_family_counts_the_parameters_it_builds() -> None:
    import torch

    for name in names():
        family = family_of(name)
        for model_name, model in family.models.items():
            assert model.family == name
            assert model_from_json(json.loads(json.dumps(model.to_json()))) == model
            with torch.device("meta"):
                network = family.build(model.network)
            counted = sum(family.count_parameters(model.network).values())
            assert sum(weight.numel() for weight in network.parameters()) == counted, f"{name}/{model_name}"


def test_configurations_of_xwam_are_written_as_before() -> None:
    data = NANO.to_json()
    assert "family" not in data
    assert "mosaic" not in data["codec"]
    assert ModelConfig.from_json(data) == NANO


def test_images_of_robotwin_have_their_own_learned_positions() -> None:
    assert at_robotwin(NANO).network.place_grid == (3, 4)
    assert at_robotwin(replace(NANO, network=replace(NANO.network, place_grid=None))).network.place_grid is None


def test_an_unknown_family_or_model_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="There is no family of models 'vwam'; choose among xwam"):
        family_of("vwam")
    with pytest.raises(ValueError, match="There is no model 'xwam/micro'; choose among xwam/nano, xwam/nano-robocasa"):
        model_named("xwam/micro")


def test_a_checkpoint_of_another_family_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    bundle = fresh_bundle(NANO, seed=0)
    save_checkpoint(path, bundle.network, replace(NANO, family="other"))
    with pytest.raises(CheckpointError, match="There is no family of models 'other'"):
        read_model(path)
    with pytest.raises(BadConfig, match="There is no family of models 'other'"):
        XwamPlugin("robosuite").spec(XwamPolicyConfig(checkpoint=str(path)))


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    bundle = fresh_bundle(NANO, seed=3)
    save_checkpoint(path, bundle.network, NANO)
    loaded = load_bundle(str(path))
    assert loaded.model == NANO
    for (name, one), (_, two) in zip(bundle.network.named_parameters(), loaded.network.named_parameters(), strict=True):
        assert one.equal(two), name


def test_each_model_has_a_default_recipe() -> None:
    assert default_recipe(None, None) == default_recipe("xwam/nano", None) == default_recipe(None, "nano") == "nano"


@pytest.mark.parametrize("family", [name for name in names() if "5b" in family_of(name).models])
def test_models_on_wan_do_not_start_from_random_weights(family: str, tmp_path: Path) -> None:
    recipe = next(iter(family_of(family).recipes().values()))
    with pytest.raises(ValueError, match=rf"{family}/5b reads images .* --model {family}/5b --start robocasa"):
        train_model(tmp_path, tmp_path / "out", recipe, model=f"{family}/5b")
