#!/usr/bin/env bash
# What surprises: OpenCV reads an OpenEXR file whose only channel is Z, the name that the format and renderers such as
# Blender give to depth, as an image of zeros: float32, the right size, no error and no warning. The same values in a
# channel Y come back to the bit. Guess: one channel, whatever its name, is read as it is. A reader of depth that treats 0
# as "no depth" then leaves out every pixel without a word. Next to R, G and B, channel Z is dropped, also without a word.
#
# Versions: opencv-python 4.11.0.86, OpenEXR 3.5.3, numpy 1.26.4 (Python 3.11).
# Seen: Y 0.500 to 3.571, Z 0.000 to 0.000; R, G, B, Z gives three channels.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet opencv-python==4.11.0.86 OpenEXR==3.5.3 numpy==1.26.4
cd "$work"
OPENCV_IO_ENABLE_OPENEXR=1 "$work/venv/bin/python" - <<'PY'
import cv2
import numpy as np
import OpenEXR

depth_m = np.arange(48 * 64, dtype=np.float32).reshape(48, 64) / 1000 + 0.5
header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
grey = np.full_like(depth_m, 0.2)


def read(name: str, channels: dict[str, np.ndarray]) -> np.ndarray:
    OpenEXR.File(header, dict(channels)).write(name)  # it replaces the values of the dict that it is given
    stored = OpenEXR.File(name, separate_channels=True).channels()
    assert all(np.array_equal(stored[key].pixels, values) for key, values in channels.items())
    return cv2.imread(name, cv2.IMREAD_UNCHANGED)


print("opencv", cv2.__version__, "OpenEXR", OpenEXR.__version__, "numpy", np.__version__)
y, z = read("y.exr", {"Y": depth_m}), read("z.exr", {"Z": depth_m})
both = read("rgbz.exr", {"R": grey, "G": grey, "B": grey, "Z": depth_m})
for name, image in (("Y", y), ("Z", z), ("R, G, B, Z", both)):
    print(f"channel {name}: {image.dtype} {image.shape}, {image.min():.3f} to {image.max():.3f}")
assert np.array_equal(y, depth_m)
assert z.shape == depth_m.shape and not z.any()
assert both.shape == (48, 64, 3) and float(both.max()) < 0.21
PY
