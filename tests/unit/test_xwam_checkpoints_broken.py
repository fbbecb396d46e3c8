"""Checkpoints that cannot be used, and where they cannot be had: each is one sentence, and nothing is left behind."""

import json
import os
import pickle
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.doubles.checkpoints import MODEL, NETWORK, Released, settings_of
from tests.doubles.hub import Hub
from tests.doubles.networks import TINY, network_of
from xwam.checkpoints import convert
from xwam.checkpoints.bundle import Bundle, dtype_of, load_bundle, save_checkpoint
from xwam.checkpoints.hub import locate
from xwam.checkpoints.metadata import MODEL_JSON, RELEASED_WEIGHTS, CheckpointError, read_metadata, read_model
from xwam.checkpoints.released import sizes_of
from xwam.checkpoints.tensors import read_tensors
from xwam.checkpoints.wan import load_wan
from xwam.config import NANO, WAN22_5B
from xwam.network.transformer import XwamNetwork


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("model.extra_blocks.0.1.", r"lack 'extra_blocks\.0\.1': 2 blocks expected, 1 found\."),
        ("model.extra_blocks.0.0.", r"lack 'extra_blocks\.0\.0'"),
        ("model.blocks.1.", r"lack 'blocks\.1': 3 blocks expected, 2 found\."),
        ("model.blocks.2.", r"lack 'blocks\.2': 3 blocks expected, 2 found\."),
    ],
)
def test_absent_blocks_are_named(released: Released, gone: str, named: str) -> None:
    folder, rewrite = released
    rewrite(lambda module: [module.pop(name) for name in list(module) if name.startswith(gone)])
    with pytest.raises(CheckpointError, match=named):
        load_bundle(str(folder))


def test_at_wans_width_there_are_thirty_blocks() -> None:
    with torch.device("meta"):
        weights = XwamNetwork(replace(WAN22_5B, num_blocks=29, num_depth_blocks=2)).state_dict()
    like = replace(WAN22_5B, num_depth_blocks=2)
    with pytest.raises(CheckpointError, match=r"lack 'blocks\.29': 30 blocks expected, 29 found\."):
        sizes_of(weights, like=like)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"action_dim": 7}, r"must have 14 and 16 numbers, the config\.yaml says \(7, 16\)\.$"),
        ({"proprio_dim": 9}, r"the config\.yaml says \(14, 9\)\.$"),
        ({"frame_skip": 5, "action_skip": 2}, r"frame_skip 5 must be a multiple of action_skip 2"),
        ({"action_skip": 0}, r"frame_skip 4 must be a multiple of action_skip 0"),
        ({"video_size": 3}, r"config\.yaml cannot be used: "),
        ({"statistics": {"q01": [], "q99": {}}}, r"The statistics hold no"),
        ({"network": {"dim": 64}}, r"states a network that cannot be built: 'ffn_dim'"),
        ({"text_len": None}, r"has no setting 'text_len'"),
    ],
)
def test_settings_that_cannot_be_used_are_one_sentence(released: Released, changes: Any, sentence: str) -> None:
    settings_of(released[0], **changes)
    with pytest.raises(CheckpointError, match=sentence):
        load_bundle(str(released[0]))


def test_latent_means_of_another_length_are_named(released: Released) -> None:
    folder, rewrite = released
    rewrite(lambda module: module.update({"vae.mean": torch.zeros(7)}))
    with pytest.raises(CheckpointError, match=r"has 48 latent channels, its 'vae\.mean' holds 7 numbers\."):
        load_bundle(str(folder))


def test_a_conversion_that_fails_leaves_nothing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(bundle: Bundle, folder: Path, notes: Any) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "write_ours", broken)
    with pytest.raises(CheckpointError, match=r"could not be written: .*No space left on device"):
        convert.write(bundle, tmp_path / "deep" / "target", "ours")
    assert list((tmp_path / "deep").iterdir()) == []
    rival = replace(MODEL, network=replace(NETWORK, depth="channel"))
    for layout in ("released", "wan", "diffusers"):
        with pytest.raises(CheckpointError, match="does not fit a layout of Wan"):
            convert.write(bundle._replace(model=rival), tmp_path / "rival", layout)
    convert.write(bundle, tmp_path / "whole", "released")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "whole"]
    with pytest.raises(CheckpointError, match="exists already"):
        convert.write(bundle, tmp_path / "whole", "released")


@pytest.mark.parametrize("text", ["{", "[]", '{"name": "x"}', "{}"])
def test_a_broken_configuration_of_ours_is_one_sentence(bundle: Bundle, tmp_path: Path, text: str) -> None:
    convert.write_wan(bundle, tmp_path)
    (tmp_path / MODEL_JSON).write_text(text)
    with pytest.raises(CheckpointError, match=r"The configuration in .*xwam\.json cannot be used: "):
        load_bundle(str(tmp_path))


def test_types_that_matrices_cannot_have() -> None:
    assert dtype_of("float16") == torch.float16
    with pytest.raises(CheckpointError, match=r"one of float32, bfloat16, float16, got 'int8'\."):
        dtype_of("int8")


def saved(tmp_path: Path, network: Any = None, model: Any = None) -> Any:
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, network or network_of(), model or replace(NANO, network=TINY))
    return path


def rewritten(path: Any, change: Any) -> Any:
    weights = load_file(path)
    change(weights)
    save_file(weights, path, read_metadata(path))
    return str(path)


def test_missing_extra_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(CheckpointError, match=r"does not fit the network: 'head\.modulation' is missing\."):
        load_bundle(rewritten(path, lambda w: w.pop("head.modulation")))
    path = saved(tmp_path)
    with pytest.raises(CheckpointError, match=r"'head\.surplus' is not part of the network\."):
        load_bundle(rewritten(path, lambda w: w.update({"head.surplus": torch.zeros(1)})))
    path = saved(tmp_path)
    with pytest.raises(CheckpointError, match=r"'head\.head\.bias' has shape \(3,\) in place of \(16,\)"):
        load_bundle(rewritten(path, lambda w: w.update({"head.head.bias": torch.zeros(3)})))


def test_cut_off_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path)
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors is cut off: \d+ bytes were written"):
        load_bundle(str(path))
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    with pytest.raises(CheckpointError, match="without a configuration of ours"):
        load_bundle(str(foreign))
    foreign.write_bytes(np.uint64(4).tobytes() + b"oops")
    with pytest.raises(CheckpointError, match="header is not JSON"):
        load_bundle(str(foreign))
    with pytest.raises(CheckpointError, match="no transformer"):
        load_wan(tmp_path)


class Payload:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("owned",))


def test_containers_that_are_none(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    convert.write_released(bundle, tmp_path)
    path = tmp_path / RELEASED_WEIGHTS
    whole = path.read_bytes()
    os.truncate(path, len(whole) // 2)
    with pytest.raises(CheckpointError, match=r"states\.pt is cut off or was not written by torch\.save\.$"):
        load_bundle(str(tmp_path))
    torch.save({"module": {"vae.mean": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match=r"holds nothing under 'model\.'"):
        load_bundle(str(tmp_path))
    torch.save({"weights": 1}, path)
    with pytest.raises(CheckpointError, match="dictionary with 'module'"):
        load_bundle(str(tmp_path))
    torch.save({"module": Payload()}, path)
    refused = r"holds more than tensors and is refused: it asks for '\w+\.mkdir'\.$"
    with pytest.raises(CheckpointError, match=refused):
        load_bundle(str(tmp_path))
    torch.save({"module": {"model.a": torch.ones(1), "model.b": "text"}}, path)
    with pytest.raises(CheckpointError, match=r"must hold tensors alone, 'model\.b' is of type str\.$"):
        load_bundle(str(tmp_path))
    path.write_bytes(pickle.dumps({"module": Payload()}))
    with pytest.raises(CheckpointError):
        load_bundle(str(tmp_path))
    assert not (tmp_path / "owned").exists()
    path.unlink()
    with pytest.raises(CheckpointError, match="There is no checkpoint at"):
        load_bundle(str(tmp_path))


def test_shards_that_do_not_hold_what_they_promise(tmp_path: Path) -> None:
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    save_file({"a": torch.ones(2)}, tmp_path / "one.safetensors")
    save_file({"b": torch.ones(3)}, tmp_path / "two.safetensors")
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    assert {name: len(value) for name, value in read_tensors(index).items()} == {"a": 2, "b": 3}
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "c": "two.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"promises 'c' in two\.safetensors"):
        read_tensors(index)


def test_an_id_on_the_hub_fetches_one_experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weights = str(RELEASED_WEIGHTS)
    files = {f"{name}/{file}": "{}" for name in ("robocasa_sft", "robotwin_sft") for file in ("config.yaml", weights)}
    hub = Hub(tmp_path / "two", files)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    held = r"'o/x-wam' holds robocasa_sft, robotwin_sft; "
    with pytest.raises(CheckpointError, match=f"^{held}name one of them, for example 'o/x-wam/robotwin_sft'"):
        locate("o/x-wam")
    with pytest.raises(
        CheckpointError, match=rf"There is no 'o/x-wam/robocasa': {held}did you mean '.*/robocasa_sft'\?$"
    ):
        locate("o/x-wam/robocasa")
    with pytest.raises(CheckpointError, match=f"There is no 'o/x-wam/lab': {held}name one of them"):
        locate("o/x-wam/lab")
    assert hub.fetched == []
    assert locate("o/x-wam/robotwin_sft", header_only=True) == tmp_path / "two" / "robotwin_sft"
    assert hub.fetched == ["robotwin_sft/config.yaml"]
    locate("o/x-wam/robotwin_sft/")
    assert hub.fetched[1:] == ["robotwin_sft/config.yaml", f"robotwin_sft/{weights}"]


def test_headers_of_our_own_layout_come_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {"xwam.json": json.dumps(MODEL.to_json()), "model.safetensors": "heavy", "vae/config.json": "{}"}
    files["tokenizer/tokenizer.json"] = "{}"
    hub = Hub(tmp_path / "ours", files)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert read_model(locate("o/xwam-1.5", header_only=True)) == MODEL
    assert hub.fetched == ["xwam.json", "tokenizer/tokenizer.json"]
    locate("o/xwam-1.5")
    assert set(hub.fetched) == set(files)


def test_an_id_on_the_hub_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "list_repo_files", unreachable)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(CheckpointError, match=r"could not be fetched \(ConnectionError\); without a network"):
        load_bundle("sharinka0715/X-WAM-checkpoints")
    for path in ("./nowhere/here", "results/nano.safetensors"):
        with pytest.raises(CheckpointError, match=f"There is no checkpoint at {path}"):
            load_bundle(path)
    for name in ("robotwin_sft", "robocasa_sft"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("{}")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **_: str(tmp_path))
    repo = "sharinka0715/X-WAM-checkpoints"
    assert locate(f"{repo}/robotwin_sft") == tmp_path / "robotwin_sft"
    with pytest.raises(CheckpointError, match=r"holds robocasa_sft, robotwin_sft as far as it was downloaded, and the"):
        locate(f"{repo}/robocasa")


def test_a_folder_that_holds_checkpoints_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pretrained", "robocasa_sft"):
        (tmp_path / name / RELEASED_WEIGHTS).parent.mkdir(parents=True)
        (tmp_path / name / RELEASED_WEIGHTS).write_text("weights")
    (tmp_path / "wan22_5b").mkdir()
    with pytest.raises(CheckpointError, match=r"holds pretrained, robocasa_sft; name one of them, for example"):
        locate(str(tmp_path))
    held = r"no checkpoint at .*/robocasa; .* holds pretrained, robocasa_sft; did you mean '.*/robocasa_sft'\?$"
    with pytest.raises(CheckpointError, match=held):
        locate(str(tmp_path / "robocasa"))
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(CheckpointError, match=r"did you mean '.*/robocasa_sft'\?$"):
        locate(f"{tmp_path.name}/robocasa")
    (tmp_path / "pretrained" / RELEASED_WEIGHTS).unlink()
    assert locate(str(tmp_path)) == tmp_path / "robocasa_sft"


def test_a_wrong_path_names_the_checkpoint_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, other = tmp_path / "lab" / "robocasa_sft", tmp_path / "lab" / "pretrained"
    for folder in (experiment, other):
        (folder / RELEASED_WEIGHTS).parent.mkdir(parents=True)
        (folder / RELEASED_WEIGHTS).write_text("weights")
        (folder / "config.yaml").write_text("{}")
    with pytest.raises(CheckpointError, match=rf"no checkpoint at .*; {experiment} is one; give that folder\.$"):
        locate(str(experiment / "checkpoints" / "lost.ckpt" / "weights.pt"))
    for file in (RELEASED_WEIGHTS, Path("config.yaml")):
        with pytest.raises(CheckpointError, match=rf"one file of .*; give the experiment's folder {experiment}\.$"):
            locate(str(experiment / file))
    with pytest.raises(CheckpointError, match=r"holds pretrained, robocasa_sft; did you mean '.*/robocasa_sft'\?$"):
        locate(str(tmp_path / "lab" / "robocasa" / "checkpoints" / "last.ckpt"))
    monkeypatch.chdir(tmp_path / "lab")  # an id on the hub is one wherever the command is typed
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(tmp_path / "fetched", {"config.yaml": "{}"}))
    assert locate("o/x-wam") == tmp_path / "fetched"
    with pytest.raises(CheckpointError, match="name of the checkpoint is empty"):
        locate("")


def test_checkpoints_are_named_as_the_hub_names_them() -> None:
    """The authors' repository holds `pretrained`, `robocasa_sft` and `robotwin_sft` (README of the release)."""
    root, named = Path(__file__).parents[2], []
    folders = ("xwam", "evalkit", "envs", "baselines", "docs", "tools", "findings", "results")
    files = [path for folder in folders for path in (root / folder).rglob("*") if path.suffix in (".py", ".md", ".sh")]
    for path in (root / "Makefile", root / "README.md", *files):
        named += re.findall(r"X-WAM-checkpoints/([\w-]+)", path.read_text())
    assert named
    assert set(named) <= {"pretrained", "robocasa_sft", "robotwin_sft"}
