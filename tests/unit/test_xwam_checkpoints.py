"""Checkpoints in every layout, and what is said of broken ones."""

import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.parity.xwam import default_folder, load_network
from tests.unit.test_xwam_network import TINY, inputs_of, network_of
from xwam import checkpoints, cli, convert, header, keys, loading
from xwam.config import NANO, Bounds, CodecConfig, ModelConfig, TextConfig, network_from_release, release_from_network
from xwam.network import XwamNetwork, free_timesteps
from xwam.text import HashedText, StoredText
from xwam.umt5 import UmT5Text
from xwam.wan_vae import WanVae

EXPERIMENT = default_folder() / "experiment"
NETWORK = replace(TINY, width=64, num_heads=4, latent_channels=48, text_width=16, text_len=6, eps=1e-6)
MODEL = ModelConfig(
    name="tiny",
    bench="robotwin",
    network=NETWORK,
    codec=CodecConfig(kind="wan22"),
    text=TextConfig(kind="umt5"),
    depth_range=NANO.depth_range,
    bounds=Bounds(
        proprio_low=(0.0, -1.0, -2.0, -1.0, -1.0, -1.0, -1.0, 0.0) * 2,
        proprio_high=(1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0) * 2,
        action_low=(-0.1,) * 14,
        action_high=(0.1,) * 14,
    ),
    image_hw_px=(64, 64),
    views=("static", "wrist", "wrist"),
    arms=("left", "right"),
    control_hz=None,
)


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "open": 3, "drawer": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def bundle():
    from diffusers import AutoencoderKLWan
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=4, decoder_base_dim=8, z_dim=48, dim_mult=[1, 2, 4, 4], num_res_blocks=1, is_residual=True,
        in_channels=12, out_channels=12, patch_size=2, scale_factor_spatial=16,
        latents_mean=[0.1] * 48, latents_std=[2.0] * 48,
    )  # fmt: skip
    config = UMT5Config(
        vocab_size=12, d_model=16, d_kv=4, d_ff=24, num_heads=4, num_layers=2, dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    text = UmT5Text(UMT5EncoderModel(config).eval(), tokenizer(), num_tokens=NETWORK.text_len)
    return checkpoints.Bundle(MODEL, network_of(NETWORK), WanVae(vae.eval().requires_grad_(False)), text)


@pytest.mark.parametrize("layout", convert.WRITERS)
def test_every_layout_gives_the_same_numbers_back(bundle, layout, tmp_path):
    folder = tmp_path / layout
    folder.mkdir()
    convert.WRITERS[layout](bundle, folder)
    again = checkpoints.load(str(folder), num_heads=NETWORK.num_heads)
    assert again.model.bounds == MODEL.bounds
    assert again.model.network == NETWORK
    assert (again.model.num_actions, again.model.frame_stride, again.model.image_hw_px) == (32, 4, (64, 64))
    for name, weight in bundle.network.state_dict().items():
        assert torch.equal(weight, again.network.state_dict()[name]), name
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    assert torch.equal(bundle.codec.encode(video), again.codec.encode(video))
    assert torch.equal(bundle.text_encoder.encode("open the drawer"), again.text_encoder.encode("open  the drawer "))


def test_names_have_inverses(bundle):
    for name in bundle.network.state_dict():
        assert keys.wan_dit_name(keys.diffusers_dit_name(name)) == name
    blocks = bundle.codec.vae.config.num_res_blocks
    for name in bundle.codec.vae.state_dict():
        assert keys.diffusers_vae_name(keys.wan_vae_name(name, num_res_blocks=blocks)) == name
    for name in bundle.text_encoder.model.state_dict():
        if "embed_tokens" not in name:
            assert keys.transformers_umt5_name(keys.wan_umt5_name(name)) == name
    config = replace(NETWORK, num_depth_blocks=2)
    assert network_from_release(release_from_network(config)) == config


def test_the_network_without_additions_is_that_of_diffusers(bundle, tmp_path):
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


def test_fine_tuning_starts_from_wan(bundle, tmp_path):
    convert.write_wan(bundle, tmp_path)
    for extra in (header.MODEL_JSON, header.ADDITIONS_FILE):
        (tmp_path / extra).unlink()
    statistics = convert.statistics_from_bounds(MODEL.bounds, MODEL.arms)
    started = convert.from_wan(tmp_path, bench="robotwin", statistics=statistics, num_depth_blocks=1)
    weights = started.network.state_dict()
    assert torch.equal(weights["extra_blocks.0.0.ffn.0.weight"], bundle.network.blocks[-1].ffn[0].weight)
    assert torch.equal(weights["blocks.0.self_attn.q.weight"], bundle.network.blocks[0].self_attn.q.weight)
    assert weights["action_encoder.0.weight"].std().item() == pytest.approx(0.02, rel=0.2)
    with pytest.raises(header.CheckpointError, match="trained for robocasa and robotwin, not for 'lab'"):
        convert.from_wan(tmp_path, bench="lab", statistics=statistics)


def test_the_command(bundle, tmp_path, capsys):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    convert.write_ours(bundle, source)
    assert cli.main(["convert", str(source), str(target), "--to", "released"]) == 0
    assert (target / header.RELEASED_WEIGHTS).is_file()
    assert cli.main(["show", str(target)]) == 0
    assert "bench robotwin, arms left, right" in capsys.readouterr().out
    assert cli.main(["convert", str(source), str(target)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["convert", str(source), str(tmp_path / "x"), "--start", "robotwin"]) == 2
    assert "needs --statistics" in capsys.readouterr().err


def test_half_precision_keeps_what_must_be_exact(bundle, tmp_path):
    target = tmp_path / "half"
    source = tmp_path / "source"
    source.mkdir()
    convert.write_ours(bundle, source)
    assert cli.main(["convert", str(source), str(target), "--precision", "bfloat16"]) == 0
    network = checkpoints.load(str(target)).network
    assert network.blocks[0].ffn[0].weight.dtype == torch.bfloat16
    assert network.blocks[0].modulation.dtype == network.time_embedding[0].weight.dtype == torch.float32
    out = network(*[t.float() for t in half_inputs(network)[:3]], *half_inputs(network)[3:], depth=True)
    assert all(part.dtype == torch.float32 and part.isfinite().all() for part in out)


def half_inputs(network):
    video, action, proprio, _ = inputs_of(channels=48)
    geometry = network.geometry(video, action.shape[1], proprio.shape[1])
    times = network.timesteps(torch.tensor([700.0, 300.0]), torch.tensor([500.0, 0.0]), geometry)
    return video, action, proprio, times, network.encode_text(torch.randn(2, NETWORK.text_len, NETWORK.text_width))


# ---- broken files


def saved(tmp_path, network=None, model=None):
    path = tmp_path / "tiny.safetensors"
    checkpoints.save_checkpoint(path, network or network_of(), model or replace(NANO, network=TINY))
    return path


def rewritten(path, change):
    weights = load_file(path)
    change(weights)
    save_file(weights, path, header.read_metadata(path))
    return str(path)


def test_missing_extra_and_misshapen_tensors_are_named(tmp_path):
    path = saved(tmp_path)
    with pytest.raises(header.CheckpointError, match=r"does not fit the network: 'head\.modulation' is missing\."):
        checkpoints.load(rewritten(path, lambda w: w.pop("head.modulation")))
    path = saved(tmp_path)
    with pytest.raises(header.CheckpointError, match=r"'head\.surplus' is not part of the network\."):
        checkpoints.load(rewritten(path, lambda w: w.update({"head.surplus": torch.zeros(1)})))
    path = saved(tmp_path)
    with pytest.raises(header.CheckpointError, match=r"'head\.head\.bias' has shape \(3,\) in place of \(16,\)"):
        checkpoints.load(rewritten(path, lambda w: w.update({"head.head.bias": torch.zeros(3)})))


def test_cut_off_and_foreign_files_are_named(tmp_path):
    path = saved(tmp_path)
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(header.CheckpointError, match=r"tiny\.safetensors is cut off: \d+ bytes were written"):
        checkpoints.load(str(path))
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    with pytest.raises(header.CheckpointError, match="without a configuration of ours"):
        checkpoints.load(str(foreign))
    foreign.write_bytes(np.uint64(4).tobytes() + b"oops")
    with pytest.raises(header.CheckpointError, match="header is not JSON"):
        checkpoints.load(str(foreign))
    with pytest.raises(header.CheckpointError, match="no transformer"):
        checkpoints.load_wan(tmp_path)


class Payload:
    def __reduce__(self):
        return (os.mkdir, ("owned",))


def test_containers_that_are_none(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    convert.write_released(bundle, tmp_path)
    path = tmp_path / header.RELEASED_WEIGHTS
    whole = path.read_bytes()
    os.truncate(path, len(whole) // 2)
    with pytest.raises(header.CheckpointError, match=r"states\.pt is cut off or was not written by torch\.save"):
        checkpoints.load(str(tmp_path))
    torch.save({"module": {"vae.mean": torch.zeros(1)}}, path)
    with pytest.raises(header.CheckpointError, match=r"holds nothing under 'model\.'"):
        checkpoints.load(str(tmp_path))
    torch.save({"weights": 1}, path)
    with pytest.raises(header.CheckpointError, match="dictionary with 'module'"):
        checkpoints.load(str(tmp_path))
    torch.save({"module": Payload()}, path)
    with pytest.raises(header.CheckpointError, match="holds more than tensors and is refused"):
        checkpoints.load(str(tmp_path))
    path.write_bytes(pickle.dumps({"module": Payload()}))
    with pytest.raises(header.CheckpointError):
        checkpoints.load(str(tmp_path))
    assert not (tmp_path / "owned").exists()
    path.unlink()
    with pytest.raises(header.CheckpointError, match="There is no checkpoint at"):
        checkpoints.load(str(tmp_path))


def test_shards_that_do_not_hold_what_they_promise(tmp_path):
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    save_file({"a": torch.ones(2)}, tmp_path / "one.safetensors")
    save_file({"b": torch.ones(3)}, tmp_path / "two.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    assert {name: len(value) for name, value in loading.read_tensors(index).items()} == {"a": 2, "b": 3}
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "c": "two.safetensors"}}))
    with pytest.raises(header.CheckpointError, match=r"promises 'c' in two\.safetensors"):
        loading.read_tensors(index)


def test_an_id_on_the_hub_without_a_network(monkeypatch, tmp_path):
    import huggingface_hub

    def unreachable(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(header.CheckpointError, match=r"could not be fetched \(ConnectionError\); without a network"):
        checkpoints.load("sharinka0715/X-WAM-checkpoints")
    with pytest.raises(header.CheckpointError, match=r"There is no checkpoint at \./nowhere"):
        checkpoints.load("./nowhere/here")

    def fetched(repo, allow_patterns):
        assert repo == "sharinka0715/X-WAM-checkpoints"
        for name in ("robocasa", "robotwin"):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "config.yaml").write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    with pytest.raises(header.CheckpointError, match=r"holds 2 experiments; name one of them: '.*/robocasa'"):
        header.locate("sharinka0715/X-WAM-checkpoints")
    assert header.locate("sharinka0715/X-WAM-checkpoints/robotwin") == tmp_path / "robotwin"


def test_prompts_are_encoded_once(tmp_path):
    asked = []

    class Encoder:
        def encode(self, prompt):
            asked.append(prompt)
            return HashedText(num_tokens=6, width=16).encode(prompt)

    for _ in range(2):
        stored = StoredText(tmp_path / "prompts", identity="a", make=Encoder, shape=(6, 16))
        assert torch.equal(stored.encode("open it"), HashedText(num_tokens=6, width=16).encode("open it"))
        assert not stored.encode("").any()
    assert asked == ["open it", ""]
    StoredText(tmp_path / "prompts", identity="b", make=Encoder, shape=(6, 16)).encode("open it")
    assert len(asked) == 3
    assert not list(tmp_path.glob("**/*.partial"))


@pytest.mark.skipif(not EXPERIMENT.exists(), reason=f"no {EXPERIMENT}; set EVALKIT_SHARED")
def test_the_released_container():
    bundle = checkpoints.load(str(EXPERIMENT), num_heads=4)
    assert bundle.model.bench == "robotwin"
    assert bundle.model.image_hw_px == (256, 320)
    assert bundle.model.network.num_depth_blocks == 2
    expected = load_network(default_folder()).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in bundle.network.state_dict().items())
    with pytest.raises(header.CheckpointError, match="put that of google/umt5-xxl"):
        bundle.text_encoder.encode("close the drawer")
