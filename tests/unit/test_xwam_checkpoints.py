"""Checkpoints in every layout: what is written comes back, moves to a device, runs in halves."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_check.cases import network_of
from safetensors.torch import load_file

from tests.doubles.checkpoints import MODEL, NETWORK, Released, settings_of
from tests.doubles.networks import TINY, inputs_of
from tests.parity.findings import default_folder
from xwam import cli
from xwam.checkpoints import convert
from xwam.checkpoints.bundle import Bundle, load_bundle, load_checkpoint, parameter_counts, save_checkpoint
from xwam.checkpoints.fresh import fresh_bundle, fresh_network
from xwam.checkpoints.metadata import (
    ADDITIONS_FILE,
    MODEL_JSON,
    RELEASED_WEIGHTS,
    CheckpointError,
    read_model,
    read_notes,
)
from xwam.checkpoints.tensor_names import (
    diffusers_dit_name,
    diffusers_vae_name,
    transformers_umt5_name,
    wan_dit_name,
    wan_umt5_name,
    wan_vae_name,
)
from xwam.codecs.wan_vae import WanVae
from xwam.config import (
    NANO,
    WAN22_5B,
    count_parameters,
    network_from_release,
    release_from_network,
)
from xwam.network.transformer import XwamNetwork, free_timesteps
from xwam.policy import XwamPlugin, XwamPolicyConfig
from xwam.robots.actions import statistics_from_bounds
from xwam.text.encoders import HashedText, StoredText

EXPERIMENT = default_folder() / "experiment"


@pytest.mark.parametrize("layout", ["ours", *convert.WRITERS])
def test_every_layout_gives_the_same_numbers_back(bundle: Bundle, layout: Any, tmp_path: Path) -> None:
    folder = tmp_path / layout
    convert.write(bundle, folder, layout)
    again = load_bundle(str(folder))
    assert again.model.bounds == MODEL.bounds
    assert again.model.network == NETWORK
    assert (again.model.num_actions, again.model.frame_stride, again.model.image_hw_px) == (32, 4, (64, 64))
    assert (again.model.num_video_steps, again.model.num_action_steps, again.model.execute_steps) == (10, 4, 8)
    assert again.model.depth_known
    assert parameter_counts(folder) == count_parameters(NETWORK)._asdict()
    for name, weight in bundle.network.state_dict().items():
        assert torch.equal(weight, again.network.state_dict()[name]), name
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    assert torch.equal(bundle.codec.encode(video), again.codec.encode(video))
    texts = bundle.text_encoder.encode("open the drawer"), again.text_encoder.encode("open  the drawer ")
    assert torch.equal(texts[0].places(), texts[1].places())


def parts_of(bundle: Bundle) -> tuple[Any, Any]:
    """Return the modules of codec and text encoder."""
    codec: Any = bundle.codec
    text_encoder: Any = bundle.text_encoder
    return codec.vae, text_encoder.model


def test_names_have_inverses(bundle: Bundle) -> None:
    for name in bundle.network.state_dict():
        assert wan_dit_name(diffusers_dit_name(name)) == name
    vae, umt5 = parts_of(bundle)
    blocks = vae.config.num_res_blocks
    for name in vae.state_dict():
        assert diffusers_vae_name(wan_vae_name(name, num_res_blocks=blocks)) == name
    for name in umt5.state_dict():
        if "embed_tokens" not in name:
            assert transformers_umt5_name(wan_umt5_name(name)) == name
    config = replace(NETWORK, num_depth_blocks=2)
    assert network_from_release(release_from_network(config)) == config


def test_the_network_without_additions_is_that_of_diffusers(bundle: Bundle, tmp_path: Path) -> None:
    from diffusers import WanTransformer3DModel

    convert.write_diffusers(bundle, tmp_path)
    theirs = WanTransformer3DModel.from_config(json.loads((tmp_path / "transformer/config.json").read_text())).eval()
    theirs.load_state_dict(load_file(tmp_path / "transformer/diffusion_pytorch_model.safetensors"))
    ours = XwamNetwork(replace(NETWORK, depth="none"))
    ours.load_state_dict({k: v for k, v in bundle.network.state_dict().items() if "extra_" not in k})
    ours.view_embedding.weight.data.zero_()
    video, _, _, _ = inputs_of(channels=48)
    video, text = video[:, :, :, :1], torch.randn(2, NETWORK.text_len, NETWORK.text_width)
    t_video = torch.tensor([[0.0, 700.0], [0.0, 300.0]])
    none = torch.zeros(2, 0)
    geometry = ours.geometry(video, 0, 0)
    with torch.inference_mode():
        times = free_timesteps(t_video, none, none, geometry)
        got = ours(video, torch.zeros(2, 0, 14), torch.zeros(2, 0, 16), times, ours.encode_text(text)).video_BCTVHW
        per_token = t_video.repeat_interleave(geometry.tokens_per_frame, dim=1)
        expected = theirs(video[:, :, :, 0], per_token, text).sample
    torch.testing.assert_close(got[:, :, :, 0], expected, atol=2e-4, rtol=2e-4)


def test_fine_tuning_starts_from_wan(bundle: Bundle, tmp_path: Path) -> None:
    convert.write_wan(bundle, tmp_path)
    for extra in (MODEL_JSON, ADDITIONS_FILE):
        (tmp_path / extra).unlink()
    statistics = statistics_from_bounds(MODEL.bounds, MODEL.arms)
    started = convert.from_wan(tmp_path, bench="robotwin", statistics=statistics, num_depth_blocks=1)
    assert not started.model.depth_known  # until data say their map
    weights = started.network.state_dict()
    released = bundle.network.state_dict()
    last = f"blocks.{len(bundle.network.blocks) - 1}"
    assert torch.equal(weights["extra_blocks.0.0.ffn.0.weight"], released[f"{last}.ffn.0.weight"])
    assert torch.equal(weights["blocks.0.self_attn.q.weight"], released["blocks.0.self_attn.q.weight"])
    assert weights["action_encoder.0.weight"].std().item() == pytest.approx(0.02, rel=0.2)
    with pytest.raises(CheckpointError, match="trained for robocasa and robotwin, not for 'lab'"):
        convert.from_wan(tmp_path, bench="lab", statistics=statistics)


def test_the_command(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    convert.write_ours(bundle, source)
    assert cli.main(["convert", str(source), str(target), "--to", "released"]) == 0
    assert (target / RELEASED_WEIGHTS).is_file()
    assert cli.main(["show", str(target)]) == 0
    assert "bench robotwin, arms left, right" in capsys.readouterr().out
    assert cli.main(["convert", str(source), str(target)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["convert", str(source), str(tmp_path / "x"), "--start", "robotwin"]) == 2
    assert "needs --statistics" in capsys.readouterr().err


def test_notes_of_the_training_travel_with_the_weights(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = {"steps": "7", "data_sha256": "abc", "command": "xwam train data out", "recipe": "{}"}
    convert.write(bundle, tmp_path / "source", "ours", notes=notes)
    assert cli.main(["convert", str(tmp_path / "source"), str(tmp_path / "target"), "--precision", "bfloat16"]) == 0
    assert read_notes(tmp_path / "target") == notes
    capsys.readouterr()
    assert cli.main(["show", str(tmp_path / "target")]) == 0
    assert "command: xwam train data out" in capsys.readouterr().out
    convert.write(bundle, tmp_path / "released", "released", notes=notes)
    assert read_notes(tmp_path / "released") == {}


def test_half_precision_keeps_what_must_be_exact(bundle: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "half"
    source = tmp_path / "source"
    source.mkdir()
    convert.write_ours(bundle, source)
    assert cli.main(["convert", str(source), str(target), "--precision", "bfloat16"]) == 0
    network = load_bundle(str(target)).network
    assert network.state_dict()["blocks.0.ffn.0.weight"].dtype == torch.bfloat16
    assert network.blocks[0].modulation.dtype == network.time_embedding[0].weight.dtype == torch.float32
    out = network(*[t.float() for t in half_inputs(network)[:3]], *half_inputs(network)[3:], depth=True)
    assert all(part.dtype == torch.float32 and part.isfinite().all() for part in out)


def half_inputs(network: Any) -> Any:
    video, action, proprio, _ = inputs_of(channels=48)
    geometry = network.geometry(video, action.shape[1], proprio.shape[1])
    times = network.timesteps(torch.tensor([700.0, 300.0]), torch.tensor([500.0, 0.0]), geometry)
    return video, action, proprio, times, network.encode_text(torch.randn(2, NETWORK.text_len, NETWORK.text_width))


@pytest.mark.parametrize("mixed", [False, True])
def test_half_containers_run(bundle: Bundle, released: Released, mixed: bool) -> None:
    folder, rewrite = released

    def halve(module: Any) -> None:
        for name, value in module.items():
            if not mixed or not name.startswith(("model.patch", "model.blocks.0.self_attn", "vae.model.encoder")):
                module[name] = value.bfloat16()

    rewrite(halve)
    again = load_bundle(str(folder))
    network = again.network
    assert network.state_dict()["blocks.0.ffn.0.weight"].dtype == (torch.float32 if mixed else torch.bfloat16)
    assert network.blocks[0].modulation.dtype == network.time_projection[1].weight.dtype == torch.float32
    out = network(*half_inputs(network), depth=True)
    assert all(part.dtype == torch.float32 and part.isfinite().all() for part in out)
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    torch.testing.assert_close(again.codec.encode(video), bundle.codec.encode(video), atol=0.05, rtol=0.05)
    tokens = [each.text_encoder.encode("open the drawer").places() for each in (again, bundle)]
    torch.testing.assert_close(*tokens, atol=0.1, rtol=0.1)


def test_containers_without_stated_sizes(bundle: Bundle, released: Released) -> None:
    folder, _ = released
    settings_of(folder, network=None)
    with pytest.raises(CheckpointError, match=r"64 wide, which is no multiple of Wan's heads of 128; give its"):
        load_bundle(str(folder))
    assert load_bundle(str(folder), num_heads=NETWORK.num_heads).model.network == NETWORK
    assert parameter_counts(folder) == count_parameters(NETWORK)._asdict()
    assert XwamPlugin().provenance(XwamPolicyConfig(checkpoint=str(folder)))["parameters"] == str(
        sum(count_parameters(NETWORK))
    )
    settings_of(folder, num_extra_layers=1)
    with pytest.raises(CheckpointError, match=r"hold 'extra_blocks\.0\.1', which is one too many"):
        load_bundle(str(folder), num_heads=NETWORK.num_heads)
    (folder / RELEASED_WEIGHTS).unlink()
    assert parameter_counts(folder) is None


def test_settings_of_the_released_container_are_read(released: Released) -> None:
    folder, _ = released
    settings_of(folder, network=None, sample_steps=None, action_denoise_steps=None, execute_steps=None,
                use_decoupled_inference=None, depth_range=None)  # fmt: skip
    model = read_model(folder)
    assert (model.num_video_steps, model.num_action_steps, model.execute_steps) == (50, 10, 32)
    provenance = XwamPlugin().provenance(XwamPolicyConfig(checkpoint=str(folder)))
    assert provenance["denoising"].startswith("10 steps for actions, 50 for video")
    assert provenance["execution"] == "32 of 32 actions of a chunk"
    assert provenance["depth scale"].startswith("assumed inverse depth from 0.05 m to 5.0 m")
    assert provenance["depth scale"].endswith("the released map is not published, so metres are a guess")
    settings_of(folder, sample_steps=25, action_denoise_steps=5, frame_skip=6, action_skip=2)
    model = read_model(folder)
    assert (model.num_video_steps, model.num_action_steps) == (25, 5)
    assert (model.frame_stride, model.num_actions, model.network.actions_per_frame) == (6, 24, 3)


def test_everything_moves_to_the_device(bundle: Bundle, tmp_path: Path) -> None:
    convert.write_ours(bundle, tmp_path)
    moved = load_bundle(str(tmp_path)).to("meta", torch.bfloat16)
    parts = (moved.network, *parts_of(moved))
    assert all(weight.device.type == "meta" for part in parts for weight in part.parameters())
    kinds = [{weight.dtype for name, weight in part.named_parameters() if "ffn" in name} for part in parts]
    assert kinds[0] == {torch.bfloat16}
    assert {weight.dtype for part in parts[1:] for weight in part.parameters()} == {torch.float32}
    plain = fresh_bundle(replace(NANO, network=replace(TINY, text_width=16)), seed=0).to("meta")
    assert plain.network.dtype == torch.float32
    assert plain.network.patch_embedding.weight.device.type == "meta"


def test_the_policy_moves_codec_and_text_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = fresh_bundle

    class Weighty:
        def to(self, device: str) -> None:
            asked.append(str(device))

    stub: Any = Weighty()

    def fresh(model: Any, *, seed: Any) -> Any:
        return real(model, seed=seed)._replace(codec=stub, text_encoder=stub)

    monkeypatch.setattr("xwam.checkpoints.fresh.fresh_bundle", fresh)
    monkeypatch.setattr("xwam.serving.plugin.check_device", lambda *_: None)  # users cannot ask for this device
    policy = XwamPlugin().make(XwamPolicyConfig(checkpoint="random-nano", device="meta", precision="bfloat16"))
    assert asked == ["meta", "meta"]
    assert policy.engine.network.dtype == torch.bfloat16


def test_a_vae_elsewhere_gives_back_where_it_was_asked(bundle: Bundle) -> None:
    seen = []

    class ReprojectedView:
        """Computes in float64, which stands for another device."""

        config, device, dtype = parts_of(bundle)[0].config, torch.device("cpu"), torch.float64

        def decode(self, latent: Any) -> Any:
            seen.append(latent.dtype)
            return type("Out", (), {"sample": latent})

    out = WanVae(ReprojectedView()).decode(torch.ones(1, 48, 1, 2, 2))
    assert seen == [torch.float64]
    assert (out.dtype, out.device.type) == (torch.float32, "cpu")


def test_the_numbers_of_the_page_are_counted() -> None:
    page = (Path(__file__).parents[2] / "docs" / "xwam.md").read_text()
    for config in (WAN22_5B, NANO.network):
        counts = count_parameters(config)
        assert all(f"{number:,}" in page for number in (*counts, sum(counts)))
    with torch.device("meta"):
        weights = XwamNetwork(WAN22_5B).state_dict()
    parts = ("patch_embedding.", "text_embedding.", "time_", "blocks.", "head.", "extra_blocks.", "blocks.0.")
    for start in parts:
        number = sum(weight.numel() for name, weight in weights.items() if name.startswith(start))
        assert f"{number:,}" in page, start


def test_prompts_are_encoded_once(tmp_path: Path) -> None:
    asked = []

    class Encoder:
        def encode(self, prompt: Any) -> Any:
            asked.append(prompt)
            return HashedText(num_tokens=6, width=16).encode(prompt)

    for _ in range(2):
        stored = StoredText(tmp_path / "prompts", identity="a", make=Encoder, shape=(6, 16))
        expected = HashedText(num_tokens=6, width=16).encode("open it")
        assert torch.equal(stored.encode("open it").places(), expected.places())
        assert not stored.encode("").places().any()
    assert asked == ["open it", ""]
    StoredText(tmp_path / "prompts", identity="b", make=Encoder, shape=(6, 16)).encode("open it")
    assert len(asked) == 3
    assert not list(tmp_path.glob("**/*.partial"))


@pytest.mark.skipif(not EXPERIMENT.exists(), reason=f"no {EXPERIMENT}; set EVALKIT_SHARED")
def test_the_released_container() -> None:
    bundle = load_bundle(str(EXPERIMENT), num_heads=4)
    assert bundle.model.bench == "robotwin"
    assert bundle.model.image_hw_px == (256, 320)
    assert bundle.model.network.num_depth_blocks == 2
    expected = network_of(default_folder()).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in bundle.network.state_dict().items())
    with pytest.raises(ValueError, match="give that of google/umt5-xxl"):
        bundle.text_encoder.encode("close the drawer")


def test_a_network_between_two_by_hand(tmp_path: Path) -> None:
    from xwam.config import NANO

    first, second = (fresh_bundle(NANO, seed=seed) for seed in (1, 2))
    one, two = ({name: w.clone() for name, w in each.network.state_dict().items()} for each in (first, second))
    between = convert.averaged(first, second, share=0.25, second_only=("proprio_decoder.",)).network.state_dict()
    name, own = "blocks.0.ffn.0.weight", "proprio_decoder.0.weight"
    torch.testing.assert_close(between[name], 0.75 * one[name] + 0.25 * two[name])
    assert torch.equal(between[own], two[own])
    with pytest.raises(CheckpointError, match=r"between 0 and 1, got 1\.5"):
        convert.averaged(first, second, share=1.5)
    other = replace(NANO, network=replace(NANO.network, num_blocks=5))
    with pytest.raises(CheckpointError, match=r"cannot be averaged: only one has \('blocks\.5"):
        convert.averaged(first, fresh_bundle(other, seed=0), share=0.5)


def test_the_command_averages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from xwam.config import NANO

    for seed in (1, 2):
        network = fresh_network(NANO.network, seed=seed)
        save_checkpoint(tmp_path / f"{seed}.safetensors", network, NANO, notes={"steps": str(seed)})
    paths = [str(tmp_path / f"{seed}.safetensors") for seed in (1, 2)]
    assert cli.main(["average", *paths, str(tmp_path / "between"), "--share", "1", "--second-only", "head."]) == 0
    assert "1.0 of" in capsys.readouterr().out
    between, _ = load_checkpoint(tmp_path / "between" / "model.safetensors")
    assert all(torch.equal(weight, between.state_dict()[name]) for name, weight in load_file(paths[1]).items())


def test_loading_imports_no_compiler_of_torch() -> None:
    load = "from xwam.checkpoints.bundle import load_bundle; load_bundle('nano')"
    code = f"import sys; {load}; print('sympy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
