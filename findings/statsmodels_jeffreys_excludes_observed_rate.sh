#!/usr/bin/env bash
# What surprises: statsmodels' Jeffreys interval of a success rate does not contain the rate itself when every episode
# succeeds or fails. Guess: the upper end is 1 for 50 of 50, since the paper that recommends the interval (Brown, Cai,
# DasGupta 2001) sets it to 1 there, and the lower end to 0 for 0 of 50. statsmodels returns the bare beta quantiles, so a table
# shows 100 % with an interval that ends below 100 %, and a test "is the published 100 % inside our interval" fails for
# the very same result. Clopper-Pearson ("beta"), Wilson and Agresti-Coull end at exactly 1.
#
# Versions: statsmodels 0.15.0, scipy 1.17.1, numpy 1.26.4, pandas 3.0.6 (Python 3.11).
# Seen: 5 of 5: 0.62062 to 0.99991; 50 of 50: 0.95124 to 0.99999; 0 of 50: 0.00001 to 0.04876.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet statsmodels==0.15.0 scipy==1.17.1 numpy==1.26.4 pandas==3.0.6
"$work/venv/bin/python" - <<'PY'
from statsmodels.stats.proportion import proportion_confint

for successes, episodes in ((5, 5), (50, 50), (0, 50)):
    rate = successes / episodes
    for method in ("jeffreys", "beta", "wilson", "agresti_coull"):
        low, high = (float(end) for end in proportion_confint(successes, episodes, method=method))
        inside = low <= rate <= high
        print(f"{successes} of {episodes}, {method}: {low:.5f} to {high:.5f}, contains {rate:.0f}: {inside}")
        assert inside == (method != "jeffreys"), method
PY
