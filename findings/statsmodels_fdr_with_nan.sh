#!/usr/bin/env bash
# What surprises: one NaN among the p-values of a benchmark's tasks turns every corrected p-value of statsmodels'
# multipletests into NaN, and yet the array of decisions that comes with them still says True for one task. Guess: NaN
# stays where it is and the other tasks are corrected without it, or an error. A NaN is easy to get: statsmodels' own
# mcnemar without correction gives it for a task on which two policies agree in every episode. The decisions cannot be
# trusted either: the NaN counts as one more test. scipy's false_discovery_control refuses the same list.
#
# Versions: statsmodels 0.15.0, scipy 1.17.1, numpy 1.26.4, pandas 3.0.6 (Python 3.11).
# Seen: p = 0.01, NaN, 0.04 with fdr_bh: decisions True, False, False; corrected p-values NaN, NaN, NaN. Without the
# NaN: True, True and 0.02, 0.04.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet statsmodels==0.15.0 scipy==1.17.1 numpy==1.26.4 pandas==3.0.6
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
from scipy.stats import false_discovery_control
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

same = mcnemar([[40, 0], [0, 10]], exact=False, correction=False).pvalue
print("p-value of a task on which both policies agree in all 50 episodes:", same)
decisions, corrected = multipletests([0.01, same, 0.04], method="fdr_bh")[:2]
print("decisions:", decisions.tolist(), "corrected p-values:", corrected.tolist())
alone = multipletests([0.01, 0.04], method="fdr_bh")[:2]
print("without that task:", alone[0].tolist(), alone[1].tolist())
try:
    false_discovery_control([0.01, same, 0.04])
except ValueError as error:
    print("scipy refuses:", error)
assert np.isnan(same) and np.isnan(corrected).all() and decisions.tolist() == [True, False, False]
assert alone[0].tolist() == [True, True]
PY
