#!/usr/bin/env bash
# What surprises: statsmodels' score interval of a difference of two success rates (Miettinen and Nurminen, the one that
# textbooks recommend) raises ValueError as soon as one policy succeeds always or never, which is where robot policies
# on easy tasks live: 50 of 50 against 47 of 50, 100 of 100 against 99 of 100. Guess: a wide but finite interval, since
# the score method exists for such tables. The interval of the ratio comes back as complex numbers there, with no
# warning, or as NaN; Newcombe's method on the same tables works.
#
# Versions: statsmodels 0.15.0, scipy 1.17.1, numpy 1.26.4, pandas 3.0.6 (Python 3.11).
# Seen: 50/50 and 47/50: "f(a) and f(b) must have different signs"; 50/50 and 50/50: "The function value at x=0.0 is
# NaN"; ratio of 50/50 and 50/50: two complex numbers, about (1.0, 1.0776); Newcombe for 50/50 and 47/50: -0.021, 0.162.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet statsmodels==0.15.0 scipy==1.17.1 numpy==1.26.4 pandas==3.0.6
"$work/venv/bin/python" -W ignore - <<'PY'
from statsmodels.stats.proportion import confint_proportions_2indep

raised = []
for first, second in (((50, 50), (47, 50)), ((100, 100), (99, 100)), ((0, 50), (3, 50)), ((50, 50), (50, 50))):
    try:
        print(first, second, confint_proportions_2indep(*first, *second, method="score", compare="diff"))
    except ValueError as error:
        raised.append((first, second))
        print(f"difference, {first[0]} of {first[1]} and {second[0]} of {second[1]}: ValueError: {error}")
ratio = confint_proportions_2indep(50, 50, 50, 50, method="score", compare="ratio")
print("ratio, 50 of 50 and 50 of 50:", ratio)
newcombe = confint_proportions_2indep(50, 50, 47, 50, method="newcomb", compare="diff")
print("difference by Newcombe, 50 of 50 and 47 of 50:", newcombe)
assert len(raised) == 4 and all(isinstance(end, complex) for end in ratio)
assert [round(end, 3) for end in newcombe] == [-0.021, 0.162]
PY
