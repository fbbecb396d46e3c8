#!/usr/bin/env bash
# What surprises: 12-bit depth codes (LeRobot keeps depth as gray12 video) that are decoded as "gray16le" are not the
# codes times 16. FFmpeg's scaler repeats the upper bits in the lower ones, so code c becomes 16 c + c // 256, and
# through "rgb48le" the same frame becomes exactly 16 c. Guess: 16 c both times, a plain change of bit depth. Whoever
# divides by 16 as a float, or fits metres to the values, gets a scale that is off by 1/4096 and differs by pixel format;
# only an integer shift (>> 4) gives the codes back from both. 8-bit depth widened to 16 bits has the same split:
# "gray16le" gives 257 c, "rgb48le" 256 c, so 255 is 65535 in one and 65280 in the other.
#
# Versions: av 18.1.0 (libswscale 9.5.102), numpy 1.26.4 (Python 3.11).
# Seen: gray12 code 1600 -> gray16le 25606, rgb48le 25600; code 4080 -> 65295 and 65280; gray 255 -> 65535 and 65280.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 numpy==1.26.4
"$work/venv/bin/python" - <<'PY'
import av
import numpy as np


def widened(codes: np.ndarray, source: str, target: str) -> np.ndarray:
    values = av.VideoFrame.from_ndarray(codes, format=source).reformat(format=target).to_ndarray()
    return values.reshape(codes.shape[0], codes.shape[1], -1)[..., 0].astype(int)


twelve = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
eight = np.arange(256, dtype=np.uint8).reshape(16, 16)
as_gray, as_rgb = widened(twelve, "gray12le", "gray16le"), widened(twelve, "gray12le", "rgb48le")
for code in (1600, 4080):
    at = twelve == code
    print(f"gray12 code {code}: gray16le {as_gray[at][0]}, rgb48le {as_rgb[at][0]}, 16 times the code {16 * code}")
wide, wide_rgb = widened(eight, "gray", "gray16le"), widened(eight, "gray", "rgb48le")
print(f"gray 255: gray16le {wide[-1, -1]}, rgb48le {wide_rgb[-1, -1]}")
codes = twelve.astype(int)
assert (as_gray == 16 * codes + codes // 256).all() and (as_rgb == 16 * codes).all()
assert (as_gray >> 4 == codes).all() and (wide == 257 * eight.astype(int)).all() and (wide_rgb == 256 * eight.astype(int)).all()
PY
