"""The tokenizer of umT5: where it is looked for, and that nothing starts without one."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.config import bind_bench, bind_policy
from evalkit.contracts.errors import BadConfig
from evalkit.store.plan import make_plan
from tests.doubles.checkpoints import Released, tokenizer
from tests.doubles.hub import Hub
from xwam import cli
from xwam.checkpoints import convert
from xwam.checkpoints.bundle import Bundle, load_bundle
from xwam.checkpoints.metadata import CheckpointError
from xwam.checkpoints.tokenizer import find_tokenizer, identity_of
from xwam.policy import XwamPlugin, XwamPolicyConfig


@pytest.fixture
def wan(tmp_path: Path) -> Path:
    """A folder of Wan2.2 with nothing but its tokenizer."""
    tokenizer().save_pretrained(tmp_path / "wan" / "google" / "umt5-xxl")
    return tmp_path / "wan"


@pytest.fixture
def bare(released: Released) -> Path:
    """A released experiment as the authors publish it: without a tokenizer."""
    for file in (released.folder / "tokenizer").iterdir():
        file.unlink()
    return released.folder


def test_a_tokenizer_is_found_where_the_release_has_it(wan: Path, bare: Path) -> None:
    umt5 = wan / "google" / "umt5-xxl"
    assert find_tokenizer(bare) is None
    for setting in (wan, umt5, umt5 / "tokenizer.json"):
        assert find_tokenizer(bare, str(setting)) == umt5
    tokenizer().save_pretrained(bare / "tokenizer")
    assert find_tokenizer(bare, str(wan)) == bare / "tokenizer"
    with pytest.raises(CheckpointError, match=r"holds no tokenizer: .* holds tokenizer\.json or spiece\.model"):
        find_tokenizer(wan / "google", str(bare.parent))
    with pytest.raises(CheckpointError, match=r"There is no tokenizer at /nowhere; give the Wan2\.2 folder"):
        find_tokenizer(wan / "google", "/nowhere")


def test_an_id_on_the_hub_fetches_the_tokenizer_alone(wan: Path, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def download(repo: str, allow_patterns: list[str]) -> str:
        asked.append((repo, allow_patterns))
        return str(wan)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_tokenizer(bare, "Wan-AI/Wan2.2-TI2V-5B") == wan / "google" / "umt5-xxl"
    assert asked[0][0] == "Wan-AI/Wan2.2-TI2V-5B"
    assert {"tokenizer.json", "google/umt5-xxl/spiece.model"} <= set(asked[0][1])
    assert not [pattern for pattern in asked[0][1] if "*" in pattern]

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(CheckpointError, match="'google/umt5-xxl' is no path on this machine"):
        find_tokenizer(bare, "google/umt5-xxl")


def test_nothing_starts_without_a_tokenizer(wan: Path, bare: Path) -> None:
    policy = bind_policy("xwam", [f"policy.xwam.checkpoint={bare}"])
    lacks = (
        r"^Policy 'xwam' lacks a tokenizer \(.* holds none\); write policy\.xwam\.tokenizer=FOLDER: the Wan2\.2 folder"
    )
    with pytest.raises(BadConfig, match=lacks):
        policy.load()
    with pytest.raises(BadConfig, match=lacks):
        make_plan(bind_bench("robosuite"), policy, num_episodes=1)
    given = bind_policy("xwam", [f"policy.xwam.checkpoint={bare}", f"policy.xwam.tokenizer={wan}"])
    assert all(finding.ok for finding in given.examine())
    assert bind_policy("xwam").examine() == []


def test_a_given_tokenizer_reads_prompts_and_is_stated(wan: Path, bare: Path) -> None:
    config = XwamPolicyConfig(checkpoint=str(bare), tokenizer=str(wan))
    expected = load_bundle(str(bare), tokenizer=str(wan)).text_encoder.encode("open the drawer")
    made: Any = XwamPlugin().make(config)
    read = made.engine.prompts.read("open the drawer")
    assert read.num_tokens == expected.rows_BMW.shape[1]
    digest = identity_of(wan / "google" / "umt5-xxl")
    assert XwamPlugin().provenance(config)["tokenizer"] == f"{digest}, given"
    tokenizer().save_pretrained(bare / "tokenizer")
    stated = XwamPlugin().provenance(config)["tokenizer"]
    assert stated.endswith("of the checkpoint; policy.xwam.tokenizer is not read")


def test_a_tokenizer_that_does_not_fit_is_refused(wan: Path, bare: Path) -> None:
    more = tokenizer()
    more.add_tokens([f"word{index}" for index in range(20)])
    more.save_pretrained(wan / "google" / "umt5-xxl")
    many = r"has 25 tokens and the text encoder knows 12\)?; give the tokenizer"
    with pytest.raises(CheckpointError, match=many):
        load_bundle(str(bare), tokenizer=str(wan))
    given = bind_policy("xwam", [f"policy.xwam.checkpoint={bare}", f"policy.xwam.tokenizer={wan}"])
    with pytest.raises(BadConfig, match=f"^Policy 'xwam' lacks a tokenizer .*{many}"):
        make_plan(bind_bench("robosuite"), given, num_episodes=1)


@pytest.mark.parametrize(
    ("special", "found"),
    [
        ({"pad_token": "</s>"}, "pad id 1, end id 1 and a prompt that ends in 1"),
        ({"eos_token": "<unk>"}, "pad id 0, end id 2 and a prompt that ends in 1"),
        ({}, "pad id 0, end id 1 and a prompt that ends in 4"),
    ],
)
def test_another_tokenizer_than_umt5s_is_refused(wan: Path, bare: Path, special: dict[str, str], found: str) -> None:
    other = tokenizer()
    other.add_special_tokens(special)
    if not special:
        other.backend_tokenizer.post_processor = None
    other.save_pretrained(wan / "google" / "umt5-xxl")
    given = bind_policy("xwam", [f"policy.xwam.checkpoint={bare}", f"policy.xwam.tokenizer={wan}"])
    refused = rf"is not umT5's: expected pad id 0, end id 1 and prompts that end in 1, got {found}\); give the Wan2\.2"
    with pytest.raises(BadConfig, match=refused) as caught:
        given.require()
    assert str(caught.value).count("google/umt5-xxl to fetch it") == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", r"is a pointer of Git LFS.*run `git lfs pull`"),
        (b"{", r"is not JSON \(.*fetch it again"),
        (b"{}", r"cannot be read: .*give the Wan2\.2 folder"),
        (b"\xff\xfe\xfd", r"is not a text file.*fetch it again"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_named(wan: Path, bare: Path, content: bytes, reason: str) -> None:
    (wan / "google" / "umt5-xxl" / "tokenizer.json").write_bytes(content)
    given = bind_policy("xwam", [f"policy.xwam.checkpoint={bare}", f"policy.xwam.tokenizer={wan}"])
    with pytest.raises(BadConfig, match=rf"lacks a tokenizer \(.*umt5-xxl.*{reason}"):
        given.require()


def test_an_own_tokenizer_on_the_hub_is_enough(wan: Path, bundle: Bundle, tmp_path: Path) -> None:
    convert.write_ours(bundle, tmp_path / "ours")
    files = [path.relative_to(tmp_path / "ours") for path in (tmp_path / "ours").rglob("*") if path.is_file()]
    hub = Hub(tmp_path / "fetched", {str(file): (tmp_path / "ours" / file).read_bytes() for file in files})
    config = XwamPolicyConfig(checkpoint="o/xwam")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "huggingface_hub", hub)
        assert all(finding.ok for finding in XwamPlugin().examine(config))
        assert "model.safetensors" not in hub.fetched
        first = XwamPlugin().provenance(config)
        assert XwamPlugin().provenance(config) == first
        assert first == XwamPlugin().provenance(replace(config, checkpoint=str(tmp_path / "ours")))
    assert first["tokenizer"].endswith(", of the checkpoint")


def test_a_training_asks_for_the_tokenizer_first(wan: Path, bare: Path, tmp_path: Path, capsys: Any) -> None:
    from xwam.training.launch import _check_tokenizer

    command = ["train", str(tmp_path / "no-data"), str(tmp_path / "run"), "--start", str(bare)]
    assert cli.main(command) == 2
    assert "holds no tokenizer; give --tokenizer FOLDER" in " ".join(capsys.readouterr().err.split())
    assert cli.main(["train", str(tmp_path / "no-data"), str(tmp_path / "run"), "--tokenizer", str(wan)]) == 2
    assert "--tokenizer is for a --start" in " ".join(capsys.readouterr().err.split())
    _check_tokenizer(str(bare), str(wan))


def test_an_empty_setting_is_no_folder(bare: Path) -> None:
    for name in ("checkpoint", "tokenizer", "text_cache"):
        with pytest.raises(BadConfig, match=rf"^policy\.xwam\.{name} is empty; give"):
            bind_policy("xwam", [f"policy.xwam.{name}="]).spec()
    with pytest.raises(CheckpointError, match="name of the tokenizer is empty"):
        find_tokenizer(bare, "")


def test_stored_text_does_not_depend_on_an_unread_setting(released: Released, wan: Path) -> None:
    config = XwamPolicyConfig(checkpoint=str(released.folder))
    plugin = XwamPlugin()
    assert plugin.text_identity(config) == plugin.text_identity(replace(config, tokenizer=str(wan)))


def test_convert_writes_a_tokenizer_into_a_checkpoint(wan: Path, bare: Path, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "whole"
    assert cli.main(["convert", str(bare), str(target), "--to", "released", "--tokenizer", str(wan)]) == 0
    assert find_tokenizer(target) == target / "tokenizer"
    capsys.readouterr()
    assert cli.main(["convert", str(target), str(tmp_path / "again"), "--tokenizer", str(wan)]) == 0
    assert "--tokenizer is not read: the source holds its own" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["convert", "nano", str(tmp_path / "nano"), "--tokenizer", str(wan)]) == 2
    assert "leave --tokenizer out" in " ".join(capsys.readouterr().err.split())
