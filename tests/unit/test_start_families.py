"""Models of other families to fine-tune: from Wan2.2, and from official weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.doubles.checkpoints import tiny_bundle
from tests.doubles.official_dreamzero import SMALL_14B, transformer, write_official
from xwam.checkpoints import convert
from xwam.checkpoints.bundle import load_bundle
from xwam.checkpoints.metadata import RELEASED_BENCHES, CheckpointError, start_model
from xwam.checkpoints.start import start_bundle
from xwam.checkpoints.tensor_names import is_addition, wan_umt5_name, wan_vae_name
from xwam.cli import main
from xwam.families import family_of
from xwam.robots.actions import statistics_from_bounds
from xwam.training.launch import default_recipe

TINY = tiny_bundle()
STATISTICS = statistics_from_bounds(TINY.model.bounds, TINY.model.arms)


@pytest.mark.parametrize("family", ["joint_attention", "video_in_training", "uwm", "dreamzero"])
def test_wan_starts_a_model_of_every_family(family: str, tmp_path: Path) -> None:
    convert.write(TINY, tmp_path / "wan", "wan")
    bundle, left_out = start_bundle(tmp_path / "wan", model=family, bench="robotwin", statistics=STATISTICS)
    assert (bundle.model.family, bundle.model.bench, left_out) == (family, "robotwin", [])
    held, source = bundle.network.state_dict(), TINY.network.state_dict()
    assert all(torch.equal(held[name], weight) for name, weight in source.items() if not is_addition(name))
    convert.write(bundle, tmp_path / "ours", "ours")
    loaded = load_bundle(str(tmp_path / "ours"))
    assert loaded.model == bundle.model
    assert all(weight.equal(held[name]) for name, weight in loaded.network.state_dict().items())


@pytest.mark.parametrize("bench", ["robocasa", "robotwin"])
@pytest.mark.parametrize("family", ["joint_attention", "video_in_training", "uwm", "dreamzero"])
def test_large_models_read_states_as_xwam_does(family: str, bench: str, tmp_path: Path) -> None:
    convert.write(TINY, tmp_path / "wan", "wan")
    statistics = statistics_from_bounds(TINY.model.bounds, RELEASED_BENCHES[bench]["arms"])
    started, _ = start_bundle(tmp_path / "wan", model=family, bench=bench, statistics=statistics)
    xwam = start_model(TINY.model.network, bench=bench, statistics=statistics, num_depth_blocks=0)
    shared = ("bench", "bounds", "image_hw_px", "views", "arms", "control_hz", "quat_side_wxyz", "text", "depth_range")
    assert {name: getattr(started.model, name) for name in shared} == {name: getattr(xwam, name) for name in shared}
    assert family_of(family).models["5b"].quat_side_wxyz == xwam.quat_side_wxyz


@pytest.mark.parametrize(
    ("model", "recipe"),
    [("uwm", "uwm-5b"), ("dreamzero/5b", "dreamzero-5b"), ("dreamzero/5b-flash", "dreamzero-flash-5b")],
)
def test_the_command_makes_a_model_with_its_recipe(model: str, recipe: str, tmp_path: Path) -> None:
    convert.write(TINY, tmp_path / "wan", "wan")
    (tmp_path / "statistics.json").write_text(json.dumps(STATISTICS))
    arguments = ["--start", "robotwin", "--model", model, "--statistics", str(tmp_path / "statistics.json")]
    assert main(["convert", str(tmp_path / "wan"), str(tmp_path / "fresh"), *arguments]) == 0
    made = load_bundle(str(tmp_path / "fresh")).model
    assert default_recipe(None, str(tmp_path / "fresh")) == recipe
    if model == "dreamzero/5b-flash":
        assert (made.name, made.network.independent_levels) == ("dreamzero-robotwin-flash", True)  # type: ignore[attr-defined]
        assert (made.num_video_steps, made.num_action_steps) == (16, 4)


def test_xwam_on_wan_has_the_recipe_of_its_bench() -> None:
    for bench in ("robocasa", "robotwin"):
        assert family_of("xwam").default_recipe(replace(TINY.model, bench=bench)) == bench


@pytest.mark.parametrize(
    ("model", "choices"),
    [("dreamzero/nano", "dreamzero/5b, dreamzero/5b-flash"), ("uwm/6b", "uwm/5b"), ("xwam/nano", "xwam alone")],
)
def test_models_that_do_not_start_from_wan_are_refused(model: str, choices: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"There is no model '{model}' that starts .* among {choices}"):
        start_bundle(tmp_path, model=model, bench="robotwin", statistics=STATISTICS)


def other_parts() -> dict[str, torch.Tensor]:
    vae, text = TINY.codec.vae, TINY.text_encoder.model  # type: ignore[attr-defined]
    parts = {f"action_head.vae.model.{wan_vae_name(k, num_res_blocks=1)}": v for k, v in vae.state_dict().items()}
    for name, value in text.state_dict().items():
        if name != "encoder.embed_tokens.weight":
            parts[f"action_head.text_encoder.{wan_umt5_name(name)}"] = value
    return {name: value.contiguous() for name, value in parts.items()}


def test_official_dreamzero_starts_a_model(tmp_path: Path) -> None:
    write_official(tmp_path / "official", others=other_parts())
    bundle, left_out = start_bundle(tmp_path / "official", model="dreamzero", bench="robotwin", statistics=STATISTICS)
    assert bundle.network.get_parameter("blocks.1.ffn.0.weight").equal(transformer()["blocks.1.ffn.0.weight"])
    assert len(left_out) == 1
    assert "CLIP image branch" in left_out[0]
    convert.write(bundle, tmp_path / "ours", "ours")
    assert load_bundle(str(tmp_path / "ours")).model == bundle.model


def test_official_14b_is_no_model_here(tmp_path: Path) -> None:
    write_official(tmp_path, sizes=SMALL_14B)
    with pytest.raises(CheckpointError, match=r"loads \(2 blocks of width 24\), but no model .* Wan2\.1's"):
        start_bundle(tmp_path, model="dreamzero", bench="robotwin", statistics=STATISTICS)


def test_the_original_uwm_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "models.pt"
    torch.save({"model": {"noise_pred_net.registers": torch.ones(1, 8, 768)}, "step": 3}, path)
    with pytest.raises(CheckpointError, match=r"holds the original UWM: its network is another one"):
        start_bundle(path, model="uwm", bench="robotwin", statistics=STATISTICS)
