"""What an episode says about itself keeps its place in the file.

In: records as recorders and replays write them. Out: a verdict.
Read next: `evalkit/dataset/about.py`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.writer import read_about

RECORDED = {
    "bench": "robosuite",
    "protocol": "robosuite-7/standard",
    "task": "Lift",
    "setting": "default",
    "settings": {"image_hw_px": [64, 64]},
    "seed": 1000000,
    "policy": "scripted",
    "disturbance": {"noise_frac": 0.1},
    "policy_settings": {},
    "policy_provenance": {"weights": "0f"},
    "takes_over_from": "xwam",
    "after_up_to": 200,
    "env": {"renderer": "software"},
    "success": False,
}
REPLAYED: dict[str, Any] = {
    "bench": "robocasa",
    "task": "CloseDrawer",
    "settings": {},
    "replayed_from": "demo.hdf5",
    "demonstration": "demo_1",
    "demonstration_sha256": "0f",
    "hand_error_mm": None,
}


@pytest.mark.parametrize("stored", [RECORDED, REPLAYED, {**REPLAYED, "hand_error_mm": 0.25}, {}])
def test_json_comes_back_in_the_same_order(stored: Any) -> None:
    assert json.dumps(EpisodeAbout.from_json(stored).to_json()) == json.dumps(stored)


def test_unknown_fields_are_kept() -> None:
    about = EpisodeAbout.from_json({"task": "Lift", "operator": {"name": "A"}})
    assert about.to_json() == {"task": "Lift", "operator": {"name": "A"}}


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ({"seed": "5"}, "'about.seed' must be a whole number, got '5'"),
        ({"seed": True}, "'about.seed' must be a whole number, got True"),
        ({"task": 3}, "'about.task' must be text, got 3"),
        ({"hand_error_mm": "none"}, "'about.hand_error_mm' must be a number, got 'none'"),
        ([1], r"'about' must be a JSON object, got \[1\]"),
    ],
)
def test_a_wrong_type_is_named(stored: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        EpisodeAbout.from_json(stored)


def test_differences_name_the_fields_of_the_file() -> None:
    one, two = EpisodeAbout.from_json(REPLAYED), EpisodeAbout.from_json({**REPLAYED, "hand_error_mm": 1.5, "task": "x"})
    assert one.differences(two) == {"hand_error_mm": (None, 1.5), "task": ("CloseDrawer", "x")}
    assert one.differences(two, ignore=("end_effector_error_mm", "task")) == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"num_frames": 0}', '{"num_frames": 1, "about": {"seed": "x"}}'])
def test_a_broken_episode_says_nothing_about_itself(tmp_path: Path, content: str) -> None:
    (tmp_path / "episode.json").write_text(content)
    assert read_about(tmp_path / "episode.json") is None
    assert read_about(tmp_path / "missing.json") is None
