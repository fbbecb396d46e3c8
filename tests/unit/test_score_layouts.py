"""Which clips, views and modalities a folder holds, whatever its layout.

In: names of files. Out: a verdict.
Read next: `evalkit/score/sources/clip_files.py`, `evalkit/score/sources/pairs.py`.
"""

from pathlib import Path

import numpy as np
import pytest

from evalkit.contracts.errors import BadConfig
from evalkit.score.sources.clip_files import find_clips
from evalkit.score.sources.pairs import pair_clips


def write(root: Path, names: list[str]) -> None:
    """Write files by name; arrays hold what the name says."""
    image = np.zeros((8, 9, 3), np.uint8)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".npy":
            np.save(path, np.zeros((2, 8, 9), np.float32) if "depth" in name else np.stack([image] * 2))
        elif path.suffix == ".npz":
            np.savez(path, rgb=image[None], depth=np.zeros((1, 8, 9), np.float32), actions=np.zeros((1, 7)))
        else:
            path.write_bytes(b"x")


def found(root: Path, known: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Return the views of each clip as `modality/view`."""
    return {
        name: sorted(f"{modality}/{view}" for modality, view in clip.streams)
        for name, clip in find_clips(root, known).clips.items()
    }


RGB, BOTH = ["rgb/camera"], ["depth/camera", "rgb/camera"]
CASES: list[tuple[list[str], dict[str, list[str]]]] = [
    (["clip.mp4", "notes.txt"], {"clip": RGB}),
    (["clip_9.mp4", "clip_10.webm"], {"clip_9": RGB, "clip_10": RGB}),
    (["0000.png", "0001.png"], {".": RGB}),
    (["clip/0000.png", "clip/0001.png"], {"clip": RGB}),
    (["task/ep_0/frame_1.jpg", "task/ep_0/frame_2.jpg", "task/ep_1/frame_1.jpg"], {"task/ep_0": RGB, "task/ep_1": RGB}),
    (["a/b/c/d/000.jpeg"], {"a/b/c/d": RGB}),
    (["videos/clip.mp4"], {"clip": RGB}),
    (["clip/video.mp4"], {"clip": RGB}),
    (["clip/frames/1.png", "clip/frames/2.png"], {"clip": RGB}),
    (["clip/images/1.png", "clip/depth/1.png"], {"clip": BOTH}),
    (["clip/rgb.mp4", "clip/depth.mkv"], {"clip": BOTH}),
    (["clip.mp4", "clip_depth.mkv"], {"clip": BOTH}),
    (["clip.mp4", "clip.depth.npy"], {"clip": BOTH}),
    (["clip.npz"], {"clip": BOTH}),
    (["clip/rgb/front.mp4", "clip/rgb/anything.mp4"], {"clip": ["rgb/anything", "rgb/front"]}),
    (["clip/rgb/zed/0.png", "clip/depth/zed/0.png"], {"clip": ["depth/zed", "rgb/zed"]}),
    (["clip/front/rgb/0.png", "clip/front/depth/0.png"], {"clip": ["depth/front", "rgb/front"]}),
    (["clip/rgb_front/0.png", "clip/depth_front/0.png"], {"clip": ["depth/front", "rgb/front"]}),
    (["clip/front/0.png", "clip/robot0_eye_in_hand/0.png"], {"clip": ["rgb/front", "rgb/robot0_eye_in_hand"]}),
    (["clip/front_0.png", "clip/front_1.png", "clip/side_0.png"], {"clip": ["rgb/front", "rgb/side"]}),
    (["clip/0_cam1.png", "clip/1_cam1.png", "clip/0_cam2.png"], {"clip": ["rgb/cam1", "rgb/cam2"]}),
    (["a_front.mp4", "a_wrist.mp4", "b_front.mp4"], {"a": ["rgb/front", "rgb/wrist"], "b_front": RGB}),
    (["push_left.mp4", "push_right.mp4"], {"push_left": RGB, "push_right": RGB}),
    (["frame-000000.color.png", "frame-000000.depth.png", "frame-000000.pose.txt"], {".": BOTH}),
    (["scene0_00/color/0.jpg", "scene0_00/depth/0.png"], {"scene0_00": BOTH}),
    (["rgb/task/ep1.mp4", "depth/task/ep1.mkv"], {"task/ep1": BOTH}),
    (["rgb/ep1.mp4", "rgb/ep2.mp4", "depth/ep1.mkv"], {"ep1": BOTH, "ep2": RGB}),
    (["rgb/agentview/0.png", "depth/agentview/0.png"], {".": ["depth/agentview", "rgb/agentview"]}),
    (["a.png", "b.png"], {"a": RGB, "b": RGB}),
    (["clip/0.png", "clip/start/0.png", "clip/mask/0.png"], {"clip": RGB}),
    ([".hidden/0.png", "clip/.0.png", "clip/0.png"], {"clip": RGB}),
]


@pytest.mark.parametrize(("names", "expected"), CASES, ids=[names[0] for names, _ in CASES])
def test_a_layout_is_understood(tmp_path: Path, names: list[str], expected: dict[str, list[str]]) -> None:
    write(tmp_path, names)
    assert found(tmp_path) == expected
    assert list(found(tmp_path)) == list(expected)


def test_views_that_a_camera_file_names_are_views(tmp_path: Path) -> None:
    write(tmp_path, ["clip/zed/0.png", "clip/other/0.png"])
    assert found(tmp_path) == {"clip/other": RGB, "clip/zed": RGB}
    assert found(tmp_path, ("zed", "other")) == {"clip": ["rgb/other", "rgb/zed"]}


def test_start_and_mask_belong_to_their_clip(tmp_path: Path) -> None:
    write(tmp_path, ["clip/rgb/front/0.png", "clip/start/rgb/front/0.png", "clip/mask/front/0.png"])
    clip = find_clips(tmp_path).clips["clip"]
    assert clip.start is not None
    assert list(clip.start.streams) == [("rgb", "front")]
    assert list(clip.masks) == ["front"]


def test_a_linked_folder_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "data", ["clip/0.png"])
    (tmp_path / "data/clip/again").symlink_to(tmp_path / "data")
    (tmp_path / "gt").symlink_to(tmp_path / "data")
    assert found(tmp_path / "gt") == {"clip": RGB}


@pytest.mark.parametrize(
    ("pred", "true", "clips"),
    [
        (["clip.mp4"], ["clip/0.png"], {"clip": ("clip", 0)}),
        (["0.png", "1.png"], ["clip.npy"], {"clip": ("clip", 0)}),
        (["t/b_2/0.png", "t/b_10/0.png"], ["t/b_2.mp4", "t/b_10.mp4"], {"t/b_2": ("t", 0), "t/b_10": ("t", 1)}),
        (["t/a/e.mp4", "u/e.mp4"], ["t/a/e.mp4", "u/e.mp4"], {"t/a/e": ("t/a", 0), "u/e": ("u", 0)}),
    ],
)
def test_clips_are_paired_by_name(
    tmp_path: Path, pred: list[str], true: list[str], clips: dict[str, tuple[str, int]]
) -> None:
    write(tmp_path / "pred", pred)
    write(tmp_path / "gt", true)
    pairs = pair_clips(tmp_path / "pred", tmp_path / "gt")
    assert {pair.name: (pair.task, pair.index) for pair in pairs.scored} == clips
    assert all(pair.pred.streams and pair.true.streams for pair in pairs.scored)
    assert not pairs.without_truth


@pytest.mark.parametrize(
    ("pred", "true", "said"),
    [
        (None, ["clip.mp4"], "PRED_DIR .*pred does not exist"),
        (["clip.mp4"], None, "GT_DIR .*gt does not exist"),
        (["a.mp4"], ["b.mp4"], "holds no prediction named b, as the clips of .* are; it holds a"),
        (["c/rgb/front/0.gif", "c/rgb/front/1.gif"], ["c/0.png"], "c/rgb/front holds 2 .gif files; readable are .png"),
        (["c/0.png"], ["c/0.heic"], "c holds 1 .heic file; readable are .png"),
        (["c/0.png", "c/cameras.json"], ["d/1.png"], "name the folder of the ground truth second"),
    ],
)
def test_folders_that_do_not_fit_are_refused(
    tmp_path: Path, pred: list[str] | None, true: list[str] | None, said: str
) -> None:
    for side, names in (("pred", pred), ("gt", true)):
        if names is not None:
            write(tmp_path / side, names)
    with pytest.raises(BadConfig, match=said):
        pair_clips(tmp_path / "pred", tmp_path / "gt")
