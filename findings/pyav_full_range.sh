#!/usr/bin/env bash
# What surprises: the full range of a YUV frame, and with it up to 20 grey levels, depends on PyAV's version and on the
# name of the pixel format. Guess: a frame that is tagged as full range (JPEG) becomes RGB by luma / 255, and if the tag
# were not used, passing src_color_range says it. Seen: PyAV 16 spreads such frames as if they had limited range, with
# and without src_color_range; the very same planes under the name yuvj444p are read right. PyAV 18 uses the tag, but
# 10-bit full range comes out half a grey level too bright on average, by up to 1.25 levels.
# A camera that records full range, as many phones and action cameras do, so changes its colours with the environment.
#
# Versions: av 16.1.0 and 18.1.0, numpy 1.26.4 (Python 3.11).
# Seen, difference from luma / largest * 255, grey frames of all luma values:
#   16.1.0  yuv444p -16.0 to 20.0 (explicit range: the same), yuvj444p 0, yuv444p10le -16.2 to 20.9
#   18.1.0  yuv444p 0, yuvj444p 0, yuv444p10le -0.25 to 1.25, mean 0.50
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/run.py" <<'PY'
import sys

import av
import numpy as np
from av.video.reformatter import ColorRange


def error(pix_fmt: str, **ranges: ColorRange) -> np.ndarray:
    """Return what RGB differs from luma / largest * 255, for a grey frame of full range."""
    largest, kind = (1023, np.uint16) if "10" in pix_fmt else (255, np.uint8)
    frame = av.VideoFrame(64, 64, pix_fmt)
    luma = np.linspace(0, largest, 64 * 64).round().astype(kind).reshape(64, 64)
    for index, plane in enumerate(frame.planes):
        lines = np.full((64, plane.line_size // luma.itemsize), (largest + 1) // 2, kind)
        lines[:, :64] = luma if index == 0 else lines[:, :64]
        plane.update(lines.tobytes())
    frame.color_range, frame.colorspace = 2, 5  # full range, BT.601
    return frame.reformat(format="rgb24", **ranges).to_ndarray()[..., 1] - luma / largest * 255


full = {"src_color_range": ColorRange.JPEG, "dst_color_range": ColorRange.JPEG}
results = {
    "yuv444p": error("yuv444p"),
    "yuv444p, range given": error("yuv444p", **full),
    "yuvj444p": error("yuvj444p"),
    "yuv444p10le, range given": error("yuv444p10le", **full),
}
print("av", av.__version__, "libswscale", av.library_versions["libswscale"], "numpy", np.__version__)
for name, values in results.items():
    print(f"  {name}: {values.min():.2f} to {values.max():.2f}, mean {values.mean():.2f}")
assert np.abs(results["yuvj444p"]).max() < 0.01
if sys.argv[1] == "16":
    assert np.abs(results["yuv444p"]).max() > 15 and np.abs(results["yuv444p, range given"]).max() > 15
else:
    assert np.abs(results["yuv444p"]).max() < 0.01
    assert 0.45 < results["yuv444p10le, range given"].mean() < 0.55
PY
for version in 16.1.0 18.1.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install --quiet "av==$version" numpy==1.26.4
    "$work/$version/bin/python" "$work/run.py" "${version%%.*}"
done
