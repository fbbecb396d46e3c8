"""Manifests: one hash for one content, and a refusal with its cause for what is no manifest.

In: vettings, files cut off and changed. Out: a verdict.
Read next: `evalkit/contracts/manifest.py`.
"""

import hashlib
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.contracts.errors import UnknownName
from evalkit.contracts.manifest import BadManifest, Manifest, TaskVettings, Vetting, read_manifest, write_manifest

GOOD = Vetting(
    seed=5,
    accepted=True,
    instructions={"seen": "Lift it – gently.", "unseen": "Raise it."},
    expert_steps=900,
    first_state_sha256="ab" * 32,
    first_frame_sha256="cd" * 32,
)
BAD = Vetting(seed=6, accepted=False, reason="the plan failed")


def entry(setting: str, task: str, *vettings: Vetting, planner: str = "cpu") -> TaskVettings:
    """Return an entry of a manifest."""
    return TaskVettings(
        setting=setting, task=task, vettings=vettings or (GOOD, BAD), max_tries=300, vetted_by={"planner": planner}
    )


def manifest(*entries: TaskVettings) -> Manifest:
    """Return a manifest of a bench."""
    return Manifest(bench="bench", protocol="bench/1", entries=entries)


FOUR = [entry(setting, task) for setting in ("clean", "randomized") for task in ("lift", "push")]


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "new/bench.json"
    written = manifest(*FOUR, entry("clean", "open", Vetting(seed=0, accepted=True)))
    write_manifest(path, written)
    assert read_manifest(path) == written
    assert json.loads(path.read_text())["sha256"] == written.sha256
    write_manifest(path, manifest())
    assert read_manifest(path) == manifest()


def test_the_hash_is_that_of_the_sorted_json(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.json", manifest(*FOUR))
    content = json.loads((tmp_path / "m.json").read_text())
    stated = content.pop("sha256")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert stated == hashlib.sha256(text.encode()).hexdigest()


def test_the_order_of_entries_changes_nothing(tmp_path: Path) -> None:
    files = set()
    for order in itertools.permutations(FOUR):
        merged = manifest()
        for each in order:
            merged = merged.merge(manifest(each))
        assert merged == manifest(*FOUR)
        write_manifest(tmp_path / "m.json", merged)
        files.add((tmp_path / "m.json").read_bytes())
    assert len(files) == 1


@pytest.mark.parametrize(
    "other",
    [
        entry("clean", "lift", GOOD, planner="mplib"),
        entry("clean", "lift", Vetting(seed=5, accepted=False, reason="no")),
        entry("clean", "lift", Vetting(seed=6, accepted=True)),
    ],
)
def test_every_difference_changes_the_hash(other: TaskVettings) -> None:
    assert manifest(other).sha256 != manifest(entry("clean", "lift", GOOD)).sha256


def test_accepted_are_in_seed_order() -> None:
    vettings = (GOOD, BAD, Vetting(seed=9, accepted=True))
    assert [vetting.seed for vetting in entry("clean", "lift", *vettings).accepted] == [5, 9]


def test_a_longer_vetting_replaces_its_beginning() -> None:
    short, long = entry("clean", "lift", GOOD), entry("clean", "lift", GOOD, BAD)
    assert manifest(short).merge(manifest(long)) == manifest(long).merge(manifest(short)) == manifest(long)


def test_the_order_of_limits_of_tries_changes_nothing() -> None:
    few, many, none = (manifest(replace(entry("clean", "lift"), max_tries=tries)) for tries in (50, 300, None))
    for one, other in itertools.permutations((few, many, none), 2):
        assert one.merge(other).sha256 == other.merge(one).sha256
    assert few.merge(many) == many
    assert none.merge(few) == few


@pytest.mark.parametrize(
    ("other", "cause"),
    [
        (entry("clean", "lift", planner="mplib"), "planner: cpu and mplib"),
        (entry("clean", "lift", GOOD, Vetting(seed=6, accepted=True)), "from seed 6"),
    ],
)
def test_two_vettings_of_one_task_are_refused(other: TaskVettings, cause: str) -> None:
    with pytest.raises(BadManifest, match=f"clean/lift has two different vettings.*{cause}"):
        manifest(*FOUR).merge(manifest(other))


def test_manifests_of_two_protocols_are_refused() -> None:
    with pytest.raises(BadManifest, match="'bench/1', the other of 'bench/2'"):
        manifest().merge(Manifest(bench="bench", protocol="bench/2"))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UnknownName, match=r"Unknown setting 'clean'\. Did you mean 'cleaned'"):
        manifest(*FOUR).check_names(settings=["cleaned"], tasks=["lift", "push"])
    with pytest.raises(UnknownName, match="Unknown task 'push'"):
        manifest(*FOUR).check_names(settings=["clean", "randomized"], tasks=["lift"])


def test_a_file_cut_off_at_any_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_manifest(path, manifest(*FOUR))
    lines = path.read_text().splitlines()
    for end in range(len(lines)):
        path.write_text("\n".join(lines[:end]))
        with pytest.raises(BadManifest, match=r"m\.json cannot be used: no whole JSON file"):
            read_manifest(path)


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [
        ("evalkit-manifest/1", "evalkit-manifest/2", "of format 'evalkit-manifest/2' instead of 'evalkit-manifest/1'"),
        ('"format"', '"form"', "it states no format"),
        ("gently", "firmly", "it was changed after it was written"),
        ('"seed": 6', '"seed": 5', "clean/lift: seed 5 is there twice"),
        ('"seed": 6', '"seed": 4', "clean/lift: seed 4 comes after seed 5"),
        ('"seed": 6', '"seed": "6"', "seed is '6', not a whole number"),
        ('"seed": 6', '"seed": NaN', "NaN is no JSON value"),
        ('"reason": "the plan failed"', '"why": "it failed"', "a vetting has wrong fields"),
        (', "reason": "the plan failed"', "", "a rejected seed needs a reason"),
        ('"accepted": true', '"accepted": 1', "accepted is 1, not true or false"),
        ('"planner": "cpu"', '"planner": 3', "not text by name"),
        ('"vettings"', '"verdicts"', "an entry needs a list 'vettings'"),
        ('"protocol": "bench/1"', '"protocol": null', "bench and protocol must be text"),
        ('"settings"', '"setting"', "it has the fields bench, format, protocol, setting, sha256"),
    ],
)
def test_a_changed_file_is_refused_with_its_cause(tmp_path: Path, before: str, after: str, cause: str) -> None:
    path = tmp_path / "m.json"
    write_manifest(path, manifest(*FOUR))
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(BadManifest) as refusal:
        read_manifest(path)
    assert cause in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadManifest, match=r"No such file or directory\. Make one with `evalkit vet`"):
        read_manifest(tmp_path / "none.json")


def test_the_module_needs_no_numpy() -> None:
    code = "import sys; sys.modules['numpy'] = None; import evalkit.contracts.manifest"
    subprocess.run([sys.executable, "-c", code], check=True)
