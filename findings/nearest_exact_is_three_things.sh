#!/usr/bin/env bash
# What surprises: three libraries offer a "nearest pixel" resize that is exact about pixel centres, and they pick
# different pixels for 256 -> 224, the most common resize in robot learning. Guess: the same pixels everywhere, since
# all three put pixel centres at half-integers. They do, but 256 / 224 = 8 / 7 puts every seventh output centre exactly
# on the border of two input pixels, and each library breaks that tie in its own way (Pillow not even in one way).
# A depth image resized by a data pipeline with one of them and by an evaluation with another differs in one column out
# of seven, at every depth edge by the whole step. 480 -> 256 and 240 -> 256 have no ties, so tests with them agree.
#
# Versions: torch 2.13.0, opencv-python 4.11.0.86, Pillow 13.0.0 (Python 3.11).
# Seen: of 224 columns, torch "nearest-exact" and OpenCV INTER_NEAREST_EXACT differ in 32, torch and Pillow NEAREST in
# 25, Pillow and OpenCV in 7; the inexact pair (torch "nearest", OpenCV INTER_NEAREST) agrees in all 224.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 opencv-python==4.11.0.86 Pillow==13.0.0 numpy==1.26.4
"$work/venv/bin/python" - <<'PY'
import cv2
import numpy as np
import torch
from PIL import Image

columns = np.arange(256, dtype=np.float32)[None].repeat(2, axis=0)  # each pixel holds its own column
tensor = torch.from_numpy(columns)[None, None]


def torch_pick(mode: str) -> np.ndarray:
    return torch.nn.functional.interpolate(tensor, size=(2, 224), mode=mode)[0, 0, 0].numpy()


def cv2_pick(flag: int) -> np.ndarray:
    return cv2.resize(columns, (224, 2), interpolation=flag)[0]


pillow = np.asarray(Image.fromarray(columns, mode="F").resize((224, 2), Image.NEAREST))[0]
exact, cv_exact = torch_pick("nearest-exact"), cv2_pick(cv2.INTER_NEAREST_EXACT)
seen = {
    "torch nearest-exact / OpenCV INTER_NEAREST_EXACT": int((exact != cv_exact).sum()),
    "torch nearest-exact / Pillow NEAREST": int((exact != pillow).sum()),
    "OpenCV INTER_NEAREST_EXACT / Pillow NEAREST": int((cv_exact != pillow).sum()),
    "torch nearest / OpenCV INTER_NEAREST": int((torch_pick("nearest") != cv2_pick(cv2.INTER_NEAREST)).sum()),
}
for pair, count in seen.items():
    print(f"{pair}: {count} of 224 columns differ")
ties = np.flatnonzero(exact != cv_exact)
print("first ties at output columns", ties[:3].tolist(), "torch", exact[ties[:3]].tolist(), "OpenCV", cv_exact[ties[:3]].tolist())
assert list(seen.values()) == [32, 25, 7, 0], seen
PY
