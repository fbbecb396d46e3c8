"""The vetted lists that others publish: every episode, one hash in any order; a malformed list is refused.

In: the published lists, and lists changed by hand. Out: a verdict.
Read next: `envs/robotwin/vetted_lists.py`.
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from envs.robotwin.vetted_lists import PUBLISHED, read_vetted_list
from evalkit.contracts.manifest import BadManifest, read_manifest, write_manifest

SHARED = Path(os.environ.get("EVALKIT_SHARED", Path(__file__).resolve().parents[3] / "shared"))
LISTS = SHARED / "assets/robotwin_expert_seeds"
published = pytest.mark.skipif(not LISTS.is_dir(), reason="the published lists are not there")


@published
def test_the_lists_hold_50_x_2_x_100_episodes(tmp_path: Path) -> None:
    manifest = read_vetted_list(LISTS)
    assert manifest.settings == ("clean", "randomized")
    assert len(manifest.entries) == 100
    assert {len(entry.accepted) for entry in manifest.entries} == {100}
    for setting in manifest.settings:
        content = json.loads((LISTS / f"demo_{setting}.json").read_text())
        for task, values in content["tasks"].items():
            entry = manifest.find(setting, task)
            assert entry is not None
            ours = [{"seed": vetting.seed, **vetting.instructions} for vetting in entry.accepted]
            assert ours == values["episodes"]
            assert entry.vetted_by["gpu"] == content["provenance"][0]["gpu"]
            assert entry.vetted_by["fingerprint"] == values["fingerprint"]
            assert "Apache-2.0" in entry.vetted_by["by"]
    write_manifest(tmp_path / "m.json", manifest)
    assert read_manifest(tmp_path / "m.json") == manifest


@published
def test_one_hash_for_any_order_and_place(tmp_path: Path) -> None:
    clean, randomized = (read_vetted_list(LISTS / f"demo_{setting}.json") for setting in ("clean", "randomized"))
    installed = tmp_path / "vla_eval/benchmarks/robotwin/expert_seeds"
    shutil.copytree(LISTS, installed)
    hashes = {
        manifest.sha256
        for manifest in (
            read_vetted_list(LISTS),
            clean.merge(randomized),
            randomized.merge(clean),
            randomized.merge(clean).merge(clean),
            read_vetted_list(tmp_path / "vla_eval"),
        )
    }
    assert len(hashes) == 1


@published
def test_a_renamed_list_is_known_by_its_content(tmp_path: Path) -> None:
    for setting, fingerprints in PUBLISHED.items():
        tasks = json.loads((LISTS / f"demo_{setting}.json").read_text())["tasks"]
        assert [values["fingerprint"][:6] for values in tasks.values()] == fingerprints.split()
    shutil.copy(LISTS / "demo_randomized.json", tmp_path / "demo_clean.json")
    with pytest.raises(BadManifest, match="its name says 'clean', but its fingerprints are those of 'randomized'"):
        read_vetted_list(tmp_path / "demo_clean.json")
    shutil.copy(LISTS / "demo_randomized.json", tmp_path / "mine.json")
    assert read_vetted_list(tmp_path / "mine.json").settings == ("randomized",)
    mixed = json.loads((LISTS / "demo_clean.json").read_text())
    other = json.loads((LISTS / "demo_randomized.json").read_text())["tasks"]["lift_pot"]
    mixed["tasks"]["lift_pot"] = other
    (tmp_path / "mine.json").write_text(json.dumps(mixed))
    with pytest.raises(BadManifest, match="it mixes episodes of the settings clean and randomized"):
        read_vetted_list(tmp_path / "mine.json")


def one_list() -> dict[str, Any]:
    """Return a list of two episodes."""
    return {
        "provenance": [{"gpu": "a"}, {"gpu": "b", "sapien": "3"}],
        "tasks": {
            "lift_pot": {
                "fingerprint": "0f",
                "episodes": [
                    {"seed": 100_000, "seen": "Lift it.", "unseen": "Raise it."},
                    {"seed": 100_002, "seen": "Lift the pot.", "unseen": "Raise the pot."},
                ],
            }
        },
    }


def test_a_list_of_several_machines_names_them_all(tmp_path: Path) -> None:
    (tmp_path / "demo_clean.json").write_text(json.dumps(one_list()))
    (entry,) = read_vetted_list(tmp_path).entries
    assert (entry.vetted_by["gpu"], entry.vetted_by["sapien"]) == ("a, b", "3")


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [
        ('"tasks"', '"task"', "it has no 'tasks'"),
        ('"gpu": "a"}', '"gpu": "a"}, 3', "its 'provenance' is no list of objects"),
        ('"fingerprint"', '"print"', "'lift_pot' needs a text 'fingerprint' and a list 'episodes'"),
        ("100002", "100000", "'lift_pot': seed 100000 is there twice"),
        ("100002", "99999", "'lift_pot': seed 99999 comes after seed 100000"),
        ("100002", '"100002"', "'lift_pot': seed is '100002' in an episode"),
        ("100002", "true", "'lift_pot': seed is True in an episode"),
        ("Raise it.", " ", "'lift_pot': unseen is ' ' in an episode"),
        (', "unseen": "Raise it."', "", "is no episode with the fields seed, seen, unseen"),
        ("}]}}}", "", "no whole JSON file"),
    ],
)
def test_a_malformed_list_is_refused(tmp_path: Path, before: str, after: str, cause: str) -> None:
    path = tmp_path / "demo_clean.json"
    text = json.dumps(one_list())
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(BadManifest) as refusal:
        read_vetted_list(path)
    assert cause in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_a_list_needs_its_name_and_place(tmp_path: Path) -> None:
    (tmp_path / "clean.json").write_text(json.dumps(one_list()))
    with pytest.raises(BadManifest, match="nothing else states its setting"):
        read_vetted_list(tmp_path / "clean.json")
    with pytest.raises(BadManifest, match=re.escape("expected demo_clean.json or demo_randomized.json")):
        read_vetted_list(tmp_path)
    with pytest.raises(BadManifest, match=r"There is no file .*demo_clean\.json: give a list that vla-eval publishes"):
        read_vetted_list(tmp_path / "demo_clean.json")
    with pytest.raises(BadManifest, match="The package 'vla-eval' is not installed"):
        read_vetted_list(Path("vla-eval"))
