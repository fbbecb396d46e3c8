#!/usr/bin/env bash
# What surprises: open3d's compute_point_cloud_distance gives 0.0, not NaN or an error, for a query point that is NaN
# and for every point when the other cloud is empty. Guess: NaN and an error, or infinity. A Chamfer distance made of it
# calls a prediction without a single valid depth a perfect one, and NaN points pull the mean towards zero.
# Only a line on the console warns about the empty cloud; about NaN nothing does. voxel_down_sample keeps the NaN point.
#
# Versions: open3d 0.20.0, numpy 1.26.4 (Python 3.11). Needs the system libraries libusb-1.0-0, libgl1, libgomp1.
# Seen: distances of [valid, NaN, valid] to a cloud 0.1 m away: 0.1, 0.0, 1.005; distances of the same three points to
# an empty cloud: 0.0, 0.0, 0.0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet open3d==0.20.0 numpy==1.26.4
"$work/venv/bin/python" - <<'PY'
import numpy as np
import open3d


def cloud(points: list[list[float]]) -> open3d.geometry.PointCloud:
    return open3d.geometry.PointCloud(open3d.utility.Vector3dVector(np.array(points).reshape(-1, 3)))


predicted = cloud([[0.0, 0.0, 0.0], [np.nan, 0.0, 0.0], [1.0, 0.0, 0.0]])
to_valid = np.asarray(predicted.compute_point_cloud_distance(cloud([[0.0, 0.0, 0.1]])))
to_nothing = np.asarray(predicted.compute_point_cloud_distance(open3d.geometry.PointCloud()))
kept = np.isnan(np.asarray(predicted.voxel_down_sample(0.5).points)).any(axis=1).sum()
print("distances to one point, the second of three points is NaN:", to_valid.round(3).tolist())
print("distances to an empty cloud:", to_nothing.tolist())
print("NaN points after voxel_down_sample:", int(kept))
assert to_valid.round(3).tolist() == [0.1, 0.0, 1.005] and to_nothing.tolist() == [0.0, 0.0, 0.0] and kept == 1
PY
