"""Data sets that a model cannot be trained on are refused before anything starts, and the episodes named."""

from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.dataset.layout import scan
from evalkit.dataset.writer import View, write_episode, write_metadata
from tests.doubles.recordings import RECORDING, key_of, steps_of
from xwam.config import NANO
from xwam.training.check_data import check_fit

MODEL = replace(NANO, views=("static", "wrist"))


def test_every_episode_is_asked(root: Path) -> None:
    check_fit(root, scan(root), MODEL)
    turned = (View(name="a", kind="dynamic"), View(name="b", kind="static"))
    write_episode(root, 3, steps_of(3), replace(RECORDING, views=turned), instructions=["x"])
    for index in range(4, 11):
        write_episode(root, index, steps_of(index, count=2), replace(RECORDING, control_hz=10.0), instructions=["x"])
    write_metadata(root)
    views = rf"views: the data hold \('wrist', 'static'\), the model needs .* \(1 of 11 episodes: {key_of(3)}\)\."
    rates = rf"rate in Hz: the data hold 10, the model needs 20 \(7 of 11 episodes: {key_of(4)}, .* and 2 more\)\."
    with pytest.raises(ValueError, match=f"{views} And {rates}"):
        check_fit(root, scan(root), MODEL)


def test_a_whole_data_set_of_another_kind(root: Path) -> None:
    other = replace(MODEL, bench="robotwin", arms=("left", "right"))
    with pytest.raises(ValueError, match=r"arms: .*raw controller actions: the data hold True.* \(all episodes\)"):
        check_fit(root, scan(root), other)
