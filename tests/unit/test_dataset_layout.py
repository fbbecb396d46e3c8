"""Data sets: what is written comes back, what is broken is named, clips and pictures by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from evalkit.dataset import layout
from evalkit.dataset.axes import ROBOCASA_AXES
from evalkit.dataset.depth_video import DepthRange, depth_bytes, millimetres
from evalkit.dataset.layout import BrokenEpisode, DataSetError, read_track, scan
from evalkit.dataset.videos import UnreadableVideo, probe, read_frames, write_video
from evalkit.dataset.writer import write_episode, write_metadata
from tests.doubles.recordings import COLS, NO_BOUNDS, RECORDING, ROWS, STEPS, cut_off, key_of, steps_of
from xwam import cli
from xwam.robots.actions import normalise
from xwam.training.augment import Augmentation, contrast, crop, draw_augmentation, rotate_hue, saturate
from xwam.training.clips import ClipDataset, ClipShape, ImageSettings, clip_states


def test_what_is_written_comes_back(root: Path) -> None:
    steps, track = steps_of(1), read_track(root, key_of(1))
    np.testing.assert_array_equal(track.action, steps.action)
    np.testing.assert_array_equal(track.executed, steps.action)
    np.testing.assert_allclose(track.proprio, steps.proprio, atol=1e-6)
    assert track.instructions == ("lift the cube", "pick it up")
    assert [camera.kind for camera in track.cameras] == ["static", "dynamic"]
    wanted = [33, 5, 5, 39, 0]
    for view_idx, camera in enumerate(track.cameras):
        np.testing.assert_array_equal(read_frames(camera.rgb_path, wanted), steps.rgb[wanted, view_idx])
        depth_m = read_frames(camera.depth_mm_path, wanted, "gray16le") / 1000
        assert np.abs(depth_m - steps.depth[wanted, view_idx]).max() <= 0.5e-3 + 1e-6
        grey = read_frames(camera.depth_path, wanted)
        np.testing.assert_array_equal(grey[..., 1], depth_bytes(steps.depth[wanted, view_idx], DepthRange()))
        assert camera.depth_range == DepthRange()


def test_a_bench_with_axes_of_its_own_is_recorded_in_the_models(tmp_path: Path) -> None:
    steps = steps_of()
    write_episode(tmp_path, 0, steps, replace(RECORDING, axes=ROBOCASA_AXES), instructions=["x"])
    track = read_track(tmp_path, key_of(0))
    np.testing.assert_allclose(ROBOCASA_AXES.sim_from_model(track.proprio, ("left",)), steps.proprio, atol=1e-6)
    np.testing.assert_array_equal(track.action, steps.action)


def test_poses_are_recorded_as_poses_and_read_as_deltas(tmp_path: Path) -> None:
    steps = steps_of(arms=("left", "right"))
    bimanual = replace(RECORDING, arms=("left", "right"), layout="ee_pose_base")
    write_episode(tmp_path, 0, steps, bimanual, instructions=["x"])
    track = read_track(tmp_path, key_of(0))
    assert not track.raw
    assert track.arms == ("left", "right")
    np.testing.assert_allclose(track.action[:, 7:10], steps.action[:, 7:10] - steps.proprio[:, 8:11], atol=1e-6)
    np.testing.assert_allclose(track.action[:-1, 13], np.diff(steps.proprio[:, 15]), atol=1e-6)
    np.testing.assert_array_equal(track.executed, steps.action)


def test_the_writer_refuses_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="equal numbers of steps"):
        write_episode(tmp_path, 0, replace(steps_of(), action=np.zeros((3, 14))), RECORDING, instructions=["x"])
    with pytest.raises(ValueError, match="not sorted"):
        replace(RECORDING, views=RECORDING.views[::-1])
    with pytest.raises(ValueError, match=r"between 0 and 65.535 m"):
        millimetres(np.array([70.0]))
    with pytest.raises(ValueError, match="F,H,W,3 uint8"):
        write_video(tmp_path / "x.mp4", np.zeros((2, 4, 4)), fps=5)


def test_the_writer_refuses_what_the_reader_would(tmp_path: Path) -> None:
    for name in ("proprio", "action", "executed"):
        holed = np.array(steps_of().proprio if name == "proprio" else steps_of().action)
        holed[7, 2] = np.nan
        with pytest.raises(ValueError, match=f"episode_0000000: '{name}' must hold finite values only; step 7"):
            write_episode(tmp_path, 0, replace(steps_of(), **{name: holed}), RECORDING, instructions=["x"])
    for instructions in ([], [" "], "lift"):
        with pytest.raises(ValueError, match="a list of one or more instructions is needed"):
            write_episode(tmp_path, 0, steps_of(), RECORDING, instructions=instructions)
    assert not list(tmp_path.iterdir())


def test_the_farthest_depth_is_that_of_16_bits() -> None:
    assert millimetres(np.float32([65.535, 65.5354])).tolist() == [65535, 65535]
    with pytest.raises(ValueError, match=r"between 0 and 65.535 m"):
        millimetres(np.float32([65.536]))


# ---- what is broken


def rewrite(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def shorter_states(content: Any) -> None:
    content["proprios"]["left_ee_pos"] = content["proprios"]["left_ee_pos"][:-3]


def not_a_rotation(content: Any) -> None:
    content["proprios"]["left_ee_rotm"][2] = [1.0] * 9


def without_grippers(content: Any) -> None:
    del content["proprios"]["left_gripper_pos"]


def widened(part: Any, name: Any) -> Any:
    """Return a change that gives a table a second copy of its columns."""

    def change(content: Any) -> None:
        content[part][name] = [row * 2 for row in content[part][name]]

    return change


def narrower_but_as_wide_together(content: Any) -> None:
    states = content["proprios"]
    states["left_gripper_pos"] = [row * 2 for row in states["left_gripper_pos"]]
    states["left_ee_pos"] = [row[:2] for row in states["left_ee_pos"]]


def poses_alone(content: Any) -> None:
    del content["actions"]["raw_actions"]
    content["actions"]["left_ee_pos"] = [row[:1] for row in content["actions"]["left_ee_pos"]]


def mirrored(content: Any) -> None:
    content["proprios"]["left_ee_rotm"][2] = [1, 0, 0, 0, 1, 0, 0, 0, -1]


def told(**changes: Any) -> Any:
    """Return a change of an episode's own entries."""
    return lambda content: content.update(changes)


def seen(**changes: Any) -> Any:
    """Return a change of what an episode says of a camera."""
    return lambda content: content["observations"]["b"].update(changes)


IN_THE_JSON = {
    "two gripper columns": (widened("proprios", "left_gripper_pos"), r"'proprios\.left_gripper_pos' has rows of 2, 1"),
    "two positions": (widened("proprios", "left_ee_pos"), r"'proprios\.left_ee_pos' has rows of 6, 3"),
    "widths that add up": (narrower_but_as_wide_together, r"'proprios\.left_ee_pos' has rows of 2, 3"),
    "18 numbers a rotation": (widened("proprios", "left_ee_rotm"), r"'proprios\.left_ee_rotm' has rows of 18, 9"),
    "goals of one number": (poses_alone, r"'actions\.left_ee_pos' has rows of 1, 3"),
    "reflection": (mirrored, r"'proprios\.left_ee_rotm' holds a reflection, with determinant -1"),
    "trusted of empty rows": (
        lambda content: content["actions"].update(trusted=[[]] * STEPS),
        r"'actions\.trusted' has rows of 0, 1",
    ),
    "states of dicts": (
        lambda content: content["proprios"].update(left_ee_pos=[{}] * STEPS),
        r"'proprios\.left_ee_pos' is not a table of numbers",
    ),
    "states beyond any number": (
        lambda content: content["proprios"].update(left_ee_pos=[[10**400] * 3] * STEPS),
        r"'proprios\.left_ee_pos' is not a table of numbers",
    ),
    "length in words": (told(num_frames="40"), "'num_frames' must be a whole number above 0, got '40'"),
    "no length": (lambda content: content.pop("num_frames"), "lacks 'num_frames'"),
    "bare instruction": (told(instructions="Lift the cube"), "'instructions' must be a list .* got 'Lift the cube'"),
    "no instruction": (told(instructions=[]), r"'instructions' must be a list .* got \[\]"),
    "empty instruction": (told(instructions=["lift", " "]), r"'instructions' must be a list .* got \['lift', ' '\]"),
    "instruction of numbers": (told(instructions=[3]), r"'instructions' must be a list .* got \[3\]"),
    "cameras in a list": (told(observations=[]), "is not in the form of an episode"),
    "unknown type of camera": (seen(type="foo"), r"'observations\.b\.type' must be static or dynamic, got 'foo'"),
    "fps in words": (seen(fps="abc"), r"'observations\.b\.fps' must be a finite number, got 'abc'"),
    "fps for ever": (seen(fps=float("inf")), r"'observations\.b\.fps' must be a finite number, got inf"),
    "fps beyond any number": (seen(fps=10**400), "is not in the form of an episode"),
    "fps of 0": (seen(fps=0), r"'observations\.b\.fps' must be above 0, got 0"),
    "start for ever": (seen(start=float("inf")), r"'observations\.b\.start' must be a finite number, got inf"),
    "start before the video": (seen(start=-5), r"'observations\.b\.start' must be the number of a frame.* got -5"),
    "path of no text": (seen(rgb_path=None), "is not in the form of an episode"),
    "depth range of lists": (
        seen(depth_range={"near_m": [0.05], "far_m": 5.0, "offset_m": 0.5}),
        r"'observations\.b\.depth_range\.near_m' must be a finite number, got \[0\.05\]",
    ),
    "depth range backwards": (
        seen(depth_range={"near_m": 5.0, "far_m": 0.05, "offset_m": 0.5}),
        r"'observations\.b\.depth_range' must go from near to far, got .*near_m=5\.0",
    ),
    "matrix of another size": (
        seen(intrinsics=[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]),
        r"'observations\.b\.intrinsics' must be 3x3, got \(3, 2\)",
    ),
}
"""Changes of an episode's JSON that leave it JSON."""


def changed(change: Any) -> Any:
    return lambda root: rewrite(root / "data" / f"{key_of(1)}.json", change)


BREAKAGES = {
    "json cut off": (lambda root: cut_off(root / "data" / f"{key_of(1)}.json"), "cannot be read"),
    "json missing": (lambda root: (root / "data" / f"{key_of(1)}.json").unlink(), "No such file"),
    "video cut off": (lambda root: cut_off(root / f"video/b/{key_of(1)}.mp4"), r"video.b.*missing or broken"),
    "depth missing": (lambda root: (root / f"depth/a/{key_of(1)}.mp4").unlink(), r"depth.a.*is missing"),
    "millimetres cut off": (lambda root: cut_off(root / f"depth_mm/a/{key_of(1)}.mkv"), r"depth_mm.a"),
    "frames missing": (
        lambda root: write_video(root / f"video/a/{key_of(1)}.mp4", steps_of(1).rgb[:30, 0], fps=20),
        "holds 30 frames, 40 from frame 0",
    ),
    "wrong length": (changed(shorter_states), r"\(37, 3\).*40 rows"),
    "no rotation": (changed(not_a_rotation), "not orthonormal"),
    "no gripper": (changed(without_grippers), "left_gripper_pos"),
    "other count": (
        lambda root: rewrite(root / "metadata.json", lambda content: content.update({key_of(1): 41})),
        "has 40 frames, metadata.json says 41",
    ),
    "camera missing": (
        changed(lambda content: content["observations"].pop("b")),
        r"episode_0000001\.json: its cameras are a \(32x48\); most episodes here have a \(32x48\), b \(32x48\)",
    ),
    "no cameras": (changed(lambda content: content.update(observations={})), "its cameras are none; most episodes"),
    "another size": (
        lambda root: write_video(root / f"video/a/{key_of(1)}.mp4", steps_of(1).rgb[:, 0, ::2, ::2], fps=20),
        r"its cameras are a \(16x24 and 32x48\), b \(32x48\); most episodes",
    ),
    **{name: (changed(change), reason) for name, (change, reason) in IN_THE_JSON.items()},
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_is_broken_is_named_and_left_out(root: Path, name: Any) -> None:
    breakage, reason = BREAKAGES[name]
    breakage(root)
    found = scan(root)
    assert list(found.lengths) == [key_of(0), key_of(2)]
    assert [broken.key for broken in found.broken] == [key_of(1)]
    with pytest.raises(BrokenEpisode, match=reason):
        raise BrokenEpisode(found.broken[0].reason)
    assert "episode_0000001" in found.broken[0].reason
    assert found.describe() == "2 episodes, 80 frames; 1 broken, left out"


@pytest.mark.parametrize(
    "change",
    [seen(fps=20), seen(start=0.0), told(num_frames=STEPS, about={}), seen(depth_range=None)],
    ids=["whole fps", "start as a float", "no notes", "unknown depth"],
)
def test_what_other_writers_do_is_no_breakage(root: Path, change: Any) -> None:
    changed(change)(root)
    assert scan(root).broken == []


def test_where_no_cameras_are_those_of_most_none_is_broken(root: Path) -> None:
    for index in range(3):
        rewrite(root / "data" / f"{key_of(index)}.json", told(observations={}))
    assert scan(root).broken == []
    write_episode(root, 3, steps_of(3), RECORDING, instructions=["x"])
    for index in (1, 2):
        (root / "data" / f"{key_of(index)}.json").unlink()
    write_metadata(root)
    assert scan(root).broken == []


def test_check_with_decode_finds_undecodable_frames(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (root / f"video/b/{key_of(1)}.mp4", root / f"depth/a/{key_of(2)}.mp4"):
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 9000] = np.random.default_rng(0).bytes(9000)
        path.write_bytes(data)
    assert cli.main(["check-data", str(root)]) == 0
    assert "0 broken, left out; frames counted, not decoded" in capsys.readouterr().out
    assert cli.main(["check-data", str(root), "--decode"]) == 1
    said = capsys.readouterr().out
    assert f"video/b/{key_of(1)}.mp4 is missing or broken" in said
    assert f"depth/a/{key_of(2)}.mp4 is missing or broken" in said
    assert said.endswith("1 episodes, 40 frames; 2 broken, left out\n")


def test_a_video_that_breaks_later_is_a_broken_episode(root: Path) -> None:
    clips = dataset(root)
    cut_off(root / f"video/b/{key_of(1)}.mp4")
    with pytest.raises(BrokenEpisode, match="episode_0000001"):
        clips[ClipShape().num_starts(STEPS)]


def test_a_video_that_is_cut_off_behind_its_index_is_refused(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (12, 32, 48, 3), dtype=np.uint8)
    write_video(tmp_path / "whole.mp4", frames, fps=20)
    with (
        av.open(str(tmp_path / "whole.mp4")) as source,
        av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    assert probe(tmp_path / "a.mp4").num_frames == 12
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[:-100])
    with pytest.raises(UnreadableVideo, match="cut off after 11"):
        probe(tmp_path / "a.mp4")
    with pytest.raises(UnreadableVideo, match="cut off"):
        read_frames(tmp_path / "a.mp4", [11])
    np.testing.assert_array_equal(read_frames(tmp_path / "a.mp4", [3]), frames[[3]])


def test_a_folder_without_metadata_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match=r"metadata\.json"):
        scan(tmp_path)
    with pytest.raises(UnreadableVideo, match="is missing"):
        read_frames(tmp_path / "none.mp4", [0])


# ---- clips


def dataset(root: Path, **changes: Any) -> Any:
    settings = {
        "shape": ClipShape(),
        "images": ImageSettings(image_hw_px=(ROWS, COLS), crop_frac=1.0, depth_range=DepthRange()),
        "bounds": NO_BOUNDS,
        "augmentation": None,
    }
    return ClipDataset(root, scan(root).lengths, **(settings | changes))


def test_clips_take_the_right_steps(root: Path) -> None:
    clips = dataset(root)
    assert len(clips) == 3 * 8
    assert clips.where(8) == (key_of(1), 0)
    sample, steps = clips[8 + 5], steps_of(1)
    expected = torch.from_numpy(steps.rgb[5:38:4]).permute(4, 0, 1, 2, 3) / 127.5 - 1
    torch.testing.assert_close(sample.video_CFVHW, expected)
    torch.testing.assert_close(sample.action_KA, torch.from_numpy(steps.action[5:37]))
    torch.testing.assert_close(sample.proprio_PS[:, :3], torch.from_numpy(steps.proprio[5:38:4, :3]))
    assert sample.action_mask_KA[0].tolist() == [1.0] * 7 + [0.0] * 7
    assert not sample.proprio_PS[:, 8:].any()
    with pytest.raises(IndexError, match="24 clips"):
        clips.where(24)


def test_exact_depth_is_finer_than_the_video(root: Path) -> None:
    coarse, fine = dataset(root), dataset(root)
    fine.images = replace(fine.images, exact_depth=True)
    difference = (coarse[3].depth_CFVHW - fine[3].depth_CFVHW).abs().max().item()
    assert 0 < difference <= 1 / 255 + 0.0025  # half a step of the bytes, half a millimetre near the camera


def test_another_map_of_depth_is_refused(root: Path) -> None:
    other = dataset(root)
    other.images = replace(other.images, depth_range=DepthRange(far_m=9.0))
    with pytest.raises(DataSetError, match=r"far_m=5\.0.*expects.*far_m=9\.0"):
        other[0]


def test_beyond_the_end_the_robot_stands_still(root: Path) -> None:
    track = read_track(root, key_of(0))
    held = clip_states(track, 39, ClipShape(past_end="hold"), NO_BOUNDS)
    np.testing.assert_allclose(held.action_KA[0], track.action[39], atol=1e-6)
    assert not held.action_KA[1:, :6].any()
    np.testing.assert_allclose(held.action_KA[1:, 6], track.action[39, 6], atol=1e-6)
    assert (held.proprio_PS == held.proprio_PS[0]).all()
    with pytest.raises(IndexError, match="no clip at step 8"):
        clip_states(track, 8, ClipShape(), NO_BOUNDS)


def test_actions_that_went_astray_carry_no_loss(tmp_path: Path) -> None:
    trusted = np.ones(STEPS, bool)
    trusted[3:6] = False
    write_episode(tmp_path, 0, replace(steps_of(), trusted=trusted), RECORDING, instructions=["x"])
    mask = clip_states(read_track(tmp_path, key_of(0)), 2, ClipShape(), NO_BOUNDS).action_mask_KA
    assert mask[:6, 0].tolist() == [1, 0, 0, 0, 1, 1]


def test_scaling_by_hand() -> None:
    assert normalise(np.float32([2.0]), [1.0], [5.0], dtype=np.float32).tolist() == [-0.5]


def test_what_was_executed_is_kept_beside_what_to_learn(tmp_path: Path) -> None:
    steps = steps_of()
    pushed = np.clip(steps.action + 0.25, -1, 1).astype(np.float32) * (steps.action != 0)
    for number, executed in enumerate((None, pushed)):
        write_episode(tmp_path, number, replace(steps, executed=executed), RECORDING, instructions=["x"])
        found = clip_states(read_track(tmp_path, key_of(number)), 2, ClipShape(), NO_BOUNDS)
        told = steps.action if executed is None else executed
        np.testing.assert_allclose(found.executed_KA, told[2:34] * found.action_mask_KA, atol=1e-6)
        np.testing.assert_allclose(found.action_KA, steps.action[2:34] * found.action_mask_KA, atol=1e-6)


# ---- pictures


def test_a_crop_in_the_middle_is_that_of_inference() -> None:
    from xwam.robots.image_pipeline import ImagePipeline

    image = torch.rand(2, 3, 64, 80) * 2 - 1
    rgb, depth = crop(image, image, 0.95)
    pipeline = ImagePipeline(env_hw_px=(64, 80), model_hw_px=(64, 80), crop_frac=0.95)
    torch.testing.assert_close(rgb, pipeline.to_model(image))
    torch.testing.assert_close(depth, pipeline.to_model(image, "nearest-exact"))


def test_colours_by_hand() -> None:
    pixel = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
    torch.testing.assert_close(rotate_hue(pixel, 0.0), pixel)
    torch.testing.assert_close(rotate_hue(pixel, 1 / 3).flatten(), torch.tensor([0.6, 0.2, 0.4]))
    torch.testing.assert_close(saturate(pixel, 0.0).flatten(), torch.full((3,), 0.363), atol=1e-3, rtol=0)
    torch.testing.assert_close(contrast(pixel, 1.0), pixel)


def test_augmentation_is_one_draw_a_clip(root: Path) -> None:
    draws = [draw_augmentation(Augmentation(), 2, np.random.default_rng(3)) for _ in range(2)]
    assert draws[0] == draws[1]
    still = torch.rand(1, 3, 8, 8).expand(4, -1, -1, -1) * 2 - 1
    assert (draws[0].jitter(still) == draws[0].jitter(still)[:1]).all()
    clips = dataset(root, augmentation=Augmentation())
    one, same, other = (clips.sample(2, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.video_CFVHW, same.video_CFVHW)
    assert not torch.equal(one.video_CFVHW, other.video_CFVHW)


def test_tracks_leave_broken_episodes_out(root: Path) -> None:
    cut_off(root / "data" / f"{key_of(2)}.json")
    assert [track.key for track in layout.tracks(root)] == [key_of(0), key_of(1)]


def test_quaternion_signs_follow_the_models_convention(tmp_path: Path) -> None:
    write_episode(tmp_path, 0, steps_of(0), RECORDING, instructions=["go"])
    write_metadata(tmp_path)
    track = read_track(tmp_path, key_of(0))
    plain = clip_states(track, 0, ClipShape(), NO_BOUNDS).proprio_PS
    side = -plain[0, 3:7]
    turned = clip_states(track, 0, ClipShape(), NO_BOUNDS, quat_side_wxyz=side).proprio_PS
    assert (turned[:, 3:7] @ side >= 0).all()
    np.testing.assert_allclose(turned[0, 3:7], side, atol=1e-6)
    np.testing.assert_allclose(np.abs(turned), np.abs(plain), atol=1e-6)
    np.testing.assert_array_equal(np.delete(turned, range(3, 7), axis=1), np.delete(plain, range(3, 7), axis=1))
