#!/usr/bin/env bash
# What surprises: "robust" regressions fit one wrong pixel out of 3,072 and reject a quarter of the right ones.
# A predicted depth image is aligned with the ground truth by one scale and shift of disparity (1 / depth). All pixels are
# exact but one, predicted at 1 mm, whose disparity is 1000. Guess: least squares fails, but a redescending loss (Tukey's
# bisquare) gives that pixel the weight 0 and finds the scale 1, and so does Huber's loss within a per cent.
# All of them find a scale near 0. The pixel is far out in the predictor, where M-estimators bound nothing: the first fit
# goes through it, and from there on it looks like the best pixel of all. Estimators of slopes between pairs
# (Theil-Sen) and of minimal samples (RANSAC) find the scale 1.
#
# Versions: scikit-learn 1.7.2, statsmodels 0.14.5, scipy 1.16.2, numpy 2.2.6, pandas 2.3.3 (Python 3.11).
# Seen, scale (right: 1): least squares 0.0002, sklearn HuberRegressor 0.0001 (867 outliers, the wrong pixel not among
# them), statsmodels RLM Huber 0.0002, Tukey 0.0002 (weight of the wrong pixel 0.93), Hampel 0.0002, QuantReg (least
# absolute deviations) -0.0001, Theil-Sen 1.0000, RANSAC 1.0000.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet scikit-learn==1.7.2 statsmodels==0.14.5 scipy==1.16.2 numpy==2.2.6 pandas==2.3.3
"$work/venv/bin/python" - <<'PY'
import numpy as np
import sklearn
import statsmodels.api as sm
from sklearn.linear_model import HuberRegressor, RANSACRegressor, TheilSenRegressor

print(f"scikit-learn {sklearn.__version__}, statsmodels {sm.__version__}, numpy {np.__version__}")
true_m = np.random.default_rng(0).uniform(0.5, 2.0, 3072)
pred_m = true_m.copy()
pred_m[0] = 0.001
predicted, true = 1 / pred_m, 1 / true_m
column, design = predicted[:, None], sm.add_constant(predicted)

huber = HuberRegressor(max_iter=1000).fit(column, true)
norms = {"Huber": sm.robust.norms.HuberT(), "Tukey": sm.robust.norms.TukeyBiweight(), "Hampel": sm.robust.norms.Hampel()}
fits = {name: sm.RLM(true, design, M=norm).fit() for name, norm in norms.items()}
fooled = {
    "least squares": np.polyfit(predicted, true, 1)[0],
    "sklearn HuberRegressor": huber.coef_[0],
    **{f"statsmodels RLM, {name}": fit.params[1] for name, fit in fits.items()},
    "statsmodels QuantReg (least absolute deviations)": sm.QuantReg(true, design).fit().params[1],
}
right = {
    "sklearn TheilSenRegressor": TheilSenRegressor(random_state=0).fit(column, true).coef_[0],
    "sklearn RANSACRegressor": RANSACRegressor(random_state=0).fit(column, true).estimator_.coef_[0],
}
for name, scale in {**fooled, **right}.items():
    print(f"{name}: scale {scale:.4f}")
weight = fits["Tukey"].weights[0]
print(f"Tukey's weight of the wrong pixel: {weight:.2f}; pixels that HuberRegressor calls outliers: "
      f"{huber.outliers_.sum()}, the wrong one {'among' if huber.outliers_[0] else 'not among'} them")
assert all(abs(scale) < 0.01 for scale in fooled.values())
assert all(abs(scale - 1) < 1e-3 for scale in right.values())
assert weight > 0.9 and huber.outliers_.sum() > 700 and not huber.outliers_[0]
PY
