"""The frames of an episode's video: their rows and labels.

In: black images. Out: checks of where white text stands.
Read next: `evalkit/store/video.py`.
"""

import numpy as np
import pytest

from evalkit.contracts.spec import CameraSpec
from evalkit.store.video import video_frame

OFFSET = tuple(map(tuple, np.eye(4).tolist()))


@pytest.mark.parametrize("name", ["front", "robot0_eye_in_hand"])
def test_labels_of_both_rows_fit_into_their_image(name: str) -> None:
    frame = video_frame(
        np.zeros((1, 128, 128, 3), np.uint8),
        np.zeros((1, 128, 128), np.float32),
        cameras=[CameraSpec(name=name, kind="wrist", arm="left", T_ee_cam=OFFSET)],
        predicted_rgb_vhwc_u8=np.zeros((1, 128, 128, 3), np.uint8),
        predicted_depth_vhw_m=None,
        with_prediction=True,
        caption="",
    )
    for row in (frame[-256:-128, :128], frame[-128:, :128]):
        columns = np.flatnonzero(row.max(axis=(0, 2)) > 100)
        assert columns[0] > 0
        assert columns[-1] < 126
