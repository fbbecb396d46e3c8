"""The ablation's table, against intervals by hand."""

from dataclasses import replace

import pytest

from baselines.ablation import ROWS, Measured, table, with_interval

BASE = Measured(
    row=ROWS[0].name, seed=0, num_success=8, num_episodes=10, action_latency_ms=20.0, psnr_db=20.0, absrel=0.02
)


def test_differences_are_taken_seed_by_seed():
    other = replace(BASE, row=ROWS[1].name, num_success=6, absrel=None, action_latency_ms=60.0)
    found = [BASE, other, replace(BASE, seed=1, num_success=4), replace(other, seed=1, num_success=3)]
    cells = [cell.strip() for cell in table(found).splitlines()[3].split("|")[1:-1]]
    half = 12.706 * 15  # of Student with one degree of freedom, times the standard error of 60 and 30
    assert cells[0] == ROWS[1].name
    assert cells[1].startswith("45.0 (")
    assert cells[2] == "6 of 10, 3 of 10"
    assert cells[3].startswith("-15.0 (")
    low, high = (float(end) for end in cells[1].split("(")[1].strip(")").split(" to "))
    assert (high - low) / 2 == pytest.approx(half, rel=1e-3)
    assert cells[5] == "-"  # no depth, no AbsRel
    assert cells[6] == "3.00 (3.00 to 3.00)"


def test_rows_share_a_training_only_where_the_recipe_is_the_same():
    trainings = {}
    for row in ROWS:
        trainings.setdefault(row.variant, set()).add(row.changes)
    assert all(len(changes) == 1 for changes in trainings.values())
    assert len(trainings) == 4
    assert with_interval([], 1) == "-"
