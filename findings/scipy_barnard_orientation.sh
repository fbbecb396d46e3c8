#!/usr/bin/env bash
# What surprises: scipy's barnard_exact gives another p-value when the 2x2 table is transposed. Guess: the orientation
# does not matter, as in Fisher's exact test and in the chi-squared test, which usually get a table with one
# policy per row. Barnard's test fixes the number of episodes of each policy, and scipy
# reads one policy per column. With one policy per row it fixes the number of successes and of failures instead,
# which is another experiment; no warning says so.
#
# Versions: scipy 1.17.1, numpy 1.26.4 (Python 3.11).
# Seen, 50 of 50 successes against 47 of 50: Barnard p = 0.092 with a policy a column and 0.114 with a policy a row,
# Boschloo 0.193 and 0.143, Fisher 0.242 both ways. 40 of 50 against 30 of 50: Barnard and Boschloo 0.035 and 0.031.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet scipy==1.17.1 numpy==1.26.4
"$work/venv/bin/python" - <<'PY'
import numpy as np
from scipy import stats

seen = {}
for first, second in ((50, 47), (40, 30)):
    columns = np.array([[first, second], [50 - first, 50 - second]])  # a policy a column
    seen[first, second] = [
        round(test(table), 3)
        for test in (
            lambda table: stats.barnard_exact(table).pvalue,
            lambda table: stats.boschloo_exact(table).pvalue,
            lambda table: stats.fisher_exact(table)[1],
        )
        for table in (columns, columns.T)
    ]
    names = ("Barnard", "Boschloo", "Fisher")
    pairs = zip(seen[first, second][::2], seen[first, second][1::2], strict=True)
    for name, (by_column, by_row) in zip(names, pairs, strict=True):
        print(f"{first} of 50 against {second} of 50, {name}: p = {by_column} by column, {by_row} by row")
for barnard_column, barnard_row, _, _, fisher_column, fisher_row in seen.values():
    assert barnard_column != barnard_row and fisher_column == fisher_row
assert seen[50, 47][:2] == [0.092, 0.114], seen
PY
