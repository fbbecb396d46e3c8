"""The tokenizer of umT5: where it is looked for, and that nothing starts without one."""

from pathlib import Path
from typing import Any

import pytest

from evalkit.config import bind_bench, bind_policy
from evalkit.contracts.errors import BadConfig
from evalkit.store.plan import make_plan
from tests.doubles.checkpoints import Released, tokenizer
from xwam import cli
from xwam.checkpoints.bundle import load_bundle
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
    with pytest.raises(CheckpointError, match="has 25 tokens and the text encoder knows 12; give the tokenizer"):
        load_bundle(str(bare), tokenizer=str(wan))
    (wan / "google" / "umt5-xxl" / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"The tokenizer in .* cannot be read: "):
        load_bundle(str(bare), tokenizer=str(wan))


def test_convert_writes_a_tokenizer_into_a_checkpoint(wan: Path, bare: Path, tmp_path: Path) -> None:
    target = tmp_path / "whole"
    assert cli.main(["convert", str(bare), str(target), "--to", "released", "--tokenizer", str(wan)]) == 0
    assert find_tokenizer(target) == target / "tokenizer"
