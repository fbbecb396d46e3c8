"""Data sets in X-WAM's layout, predicted again: the same frames, states and actions as were written.

In: a data set written by `evalkit/dataset/writer.py`. Out: a verdict.
Read next: `evalkit/score/sources/data_set.py`, `evalkit/score/sources/recorded.py`.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.geometry import inverse, quat_from_matrix
from evalkit.contracts.plugins import load_bench
from evalkit.contracts.spec import PolicySpec
from evalkit.contracts.types import ARM_PROPRIO, PolicyReply, Prediction
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.axes import ROBOTWIN_AXES, SAME_AXES
from evalkit.dataset.layout import read_track
from evalkit.dataset.writer import Steps, recording_of, write_episode, write_metadata
from evalkit.score.chunk import ScoreOptions
from evalkit.score.dataset import score_dataset
from evalkit.score.results.table import read_scores
from evalkit.score.sources.recorded import open_source
from tests.doubles.known import known
from tests.doubles.scene import scene_chunk

NO_LPIPS = ScoreOptions(lpips_nets=())
BENCH = load_bench("robosuite")
ENV = BENCH.env_spec(BENCH.config_type(), task="Lift", setting="default")
NUM_STEPS = 26
SPEC = PolicySpec(
    policy_id="still",
    action_layouts=(ENV.action_layout,),
    chunk_len=8,
    execute_steps=4,
    predicts=("rgb", "depth", "proprio"),
    num_future_frames=2,
    takes_actions=True,
)


SCENE = scene_chunk(num_frames=NUM_STEPS, image_hw_px=ENV.image_hw_px)
"""Two static cameras and a wrist, as in `ENV`; cameras, depth and states agree with each other."""


def _steps() -> Any:
    rng, wrist = np.random.default_rng(0), ENV.cameras[2]
    states = np.zeros((NUM_STEPS, 16), np.float32)
    T_base_ee = SCENE.true.T_base_cam_fv44[:, 2] @ inverse(np.asarray(wrist.T_ee_cam))
    arm = ARM_PROPRIO[known(wrist.arm)]
    quats = np.stack([quat_from_matrix(T[:3, :3]) for T in T_base_ee])
    states[:, arm] = np.concatenate([T_base_ee[:, :3, 3], quats, np.ones((NUM_STEPS, 1))], axis=1)
    action = np.zeros((NUM_STEPS, 14), np.float32)
    action[:, :7] = rng.uniform(-1, 1, (NUM_STEPS, 7))
    rgb, depth = SCENE.true.rgb_fvhwc_u8, SCENE.true.depth_fvhw_m
    return Steps(rgb=rgb, depth=depth, proprio=states, action=action, executed=action / 2)


STEPS = _steps()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    about = EpisodeAbout(bench="robosuite", task="Lift", setting="default", seed=5)
    for index in (0, 7):
        write_episode(root, index, STEPS, recording_of(ENV, SAME_AXES), instructions=["Lift the cube."], about=about)
    write_metadata(root)
    return root


@pytest.fixture
def root(written: Any, tmp_path: Path) -> Path:
    for path in written.rglob("*"):
        if path.is_file():
            copy = tmp_path / "data_set" / path.relative_to(written)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return tmp_path / "data_set"


class Teller:
    """Knows the recording, and predicts it if it is given the actions; otherwise predicts that nothing moves."""

    spec = SPEC

    def __init__(self) -> None:
        self.given: list[Any] = []

    def reset(self, episode: Any, env: Any) -> None:
        pass

    def infer(self, requests: Any) -> Any:
        (request,) = requests
        actions, seen = request.given_actions, request.observation
        frames = [request.step_idx] * 2
        if actions is not None:
            self.given.append((request.step_idx, actions))
            frames = [min(request.step_idx + offset, NUM_STEPS - 1) for offset in (4, 8)]
        future = Prediction(rgb=STEPS.rgb[frames], depth=STEPS.depth[frames], proprio=STEPS.proprio[frames])
        assert np.array_equal(seen.rgb, STEPS.rgb[request.step_idx])
        reply = np.zeros((8, 14), np.float32) if actions is None else actions
        return [PolicyReply(actions=reply, prediction=lambda: future)]


def _score(root: Path, tmp_path: Path, policy: Any = None, modes: Any = ("own", "recorded")) -> Any:
    return read_scores(score_dataset(root, policy or Teller(), tmp_path / "s.parquet", modes=modes, options=NO_LPIPS))


def test_chunks_are_what_was_written(root: Path) -> None:
    source = open_source(root)
    assert [(entry.task, entry.index) for entry in source.episodes] == [("chunk-0000", 0), ("chunk-0000", 7)]
    with source.open(source.episodes[1], SPEC) as recorded:
        assert (recorded.episode.task, recorded.episode.index, recorded.episode.seed) == ("Lift", 7, 5)
        assert recorded.instruction == "Lift the cube."
        np.testing.assert_allclose(known(recorded.actions_nd), STEPS.executed, atol=1e-7)
        chunks = [each.chunk for each in recorded.chunks if not each.problems]
    assert [(chunk.step_idx, chunk.num_executed, len(chunk.true.rgb_fvhwc_u8)) for chunk in chunks] == [
        (0, 8, 2),
        (8, 8, 2),
        (16, 8, 2),
        (24, 1, 0),
    ]
    np.testing.assert_array_equal(chunks[1].start.rgb_fvhwc_u8[0], STEPS.rgb[8])
    np.testing.assert_array_equal(chunks[1].true.rgb_fvhwc_u8, STEPS.rgb[[12, 16]])
    np.testing.assert_allclose(chunks[2].true.depth_fvhw_m, STEPS.depth[[20, 24]], atol=5e-4)
    np.testing.assert_allclose(chunks[0].true.proprio_fd, STEPS.proprio[[4, 8]], atol=1e-6)


def test_states_and_cameras_are_those_of_the_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(BENCH), "dataset_axes", lambda self: ROBOTWIN_AXES)
    about = EpisodeAbout(bench="robosuite", task="Lift", setting="default", seed=5)
    steps = replace(STEPS, T_base_cam=SCENE.true.T_base_cam_fv44)
    write_episode(tmp_path, 0, steps, recording_of(ENV, ROBOTWIN_AXES), instructions=["Lift it."], about=about)
    write_metadata(tmp_path)
    source = open_source(tmp_path)
    with source.open(source.episodes[0], SPEC) as recorded:
        chunk = next(iter(recorded.chunks)).chunk
    np.testing.assert_allclose(chunk.true.proprio_fd, STEPS.proprio[[4, 8]], atol=1e-6)
    np.testing.assert_allclose(chunk.true.T_base_cam_fv44, SCENE.true.T_base_cam_fv44[[4, 8]], atol=1e-6)
    stored = np.array(known(read_track(tmp_path, "chunk-0000/episode_0000000").cameras[0].T_base_cam))
    np.testing.assert_allclose(stored, ROBOTWIN_AXES.base_to_model(SCENE.true.T_base_cam_fv44[0, 0]), atol=1e-6)
    assert np.abs(stored - SCENE.true.T_base_cam_fv44[0, 0]).max() > 0.1


def test_both_modes_stand_apart(root: Path, tmp_path: Path) -> None:
    policy = Teller()
    scores = _score(root, tmp_path, policy)
    error = scores[scores["metric"] == "absrel/gt_mask_10m"].groupby("subject", observed=True)["value"].max()
    assert error["policy_given_actions"] < 1e-6 < error["policy"]
    assert error["policy"] == error["repeat_last_frame"]
    assert set(scores["task"]) == {"Lift"}
    step_idx, last = policy.given[3]
    assert step_idx == 24
    np.testing.assert_allclose(last[:2], STEPS.executed[24:], atol=1e-7)
    assert not last[2:, :6].any()  # beyond the recording: hold still, gripper as it was
    np.testing.assert_allclose(last[2:, 6], STEPS.executed[-1, 6])


def test_clouds_need_cameras_and_say_so(root: Path, tmp_path: Path) -> None:
    scores = _score(root, tmp_path, modes=("recorded",))
    cloud = scores[(scores["metric"] == "chamfer_m/l1_half_10m") & (scores["subject"] == "policy_given_actions")]
    assert set(cloud["status"]) == {"bad_camera"}
    for path in root.glob("data/*/*.json"):
        said = json.loads(path.read_text())
        for number, view in enumerate(said["observations"].values()):
            view["intrinsics"] = SCENE.intrinsics_v33_px[number].tolist()
            view["T_base_cam"] = SCENE.true.T_base_cam_fv44[0, number].tolist()
        path.write_text(json.dumps(said))
    scores = _score(root, tmp_path, modes=("recorded",))
    cloud = scores[(scores["metric"] == "chamfer_m/l1_half_10m") & (scores["subject"] == "policy_given_actions")]
    assert cloud["value"].max() < 1e-3


def test_matrices_that_were_recorded_make_the_cloud(root: Path, tmp_path: Path) -> None:
    before = sorted(root.glob("data/*/*.json"))[0].read_text()
    intrinsics = np.broadcast_to(SCENE.intrinsics_v33_px, (NUM_STEPS, 3, 3, 3))
    poses = SCENE.true.T_base_cam_fv44.copy()
    about = EpisodeAbout(bench="robosuite", task="Lift", setting="default", seed=5)
    for name, moved_m in (("still", 0.0), ("moving", 0.01)):
        poses[-1, 1, 0, 3] += moved_m
        steps = replace(STEPS, intrinsics=intrinsics, T_base_cam=poses)
        write_episode(root, 0, steps, recording_of(ENV, SAME_AXES), instructions=["Lift the cube."], about=about)
        write_metadata(root)
        written = json.loads((root / "data/chunk-0000/episode_0000000.json").read_text())
        views = written["observations"]
        assert [view.pop("intrinsics") for view in views.values()] == [intrinsics[0, 0].tolist()] * 3
        found = [(view.pop("T_base_cam", None) or np.zeros((4, 4)))[0][3] for view in views.values()]
        assert found == ([0.9, -0.9, 0.0] if name == "still" else [0.9, 0.0, 0.0])
        assert json.dumps(written) == before
        scores = _score(root, tmp_path, modes=("recorded",))
        clouds = scores[(scores["metric"] == "chamfer_m/l1_half_10m") & (scores["index"] == 0)]
        clouds = clouds[clouds["subject"] == "policy_given_actions"]
        assert set(clouds["status"]) == ({"ok"} if name == "still" else {"bad_camera"})
        assert name == "moving" or clouds["value"].max() < 1e-3


def test_broken_files_are_rows(root: Path, tmp_path: Path) -> None:
    first, second = sorted(root.glob("data/*/*.json"))
    first.write_text("{")
    video = next((root / "depth_mm").rglob("episode_0000007.mkv"))
    video.write_bytes(video.read_bytes()[:2000])
    scores = _score(root, tmp_path, modes=("own",))
    lost = scores[scores["metric"] == "clip"]
    assert list(lost["status"]) == ["broken_clip"] * 2
    second.unlink()
    first.write_text(json.dumps({"num_frames": NUM_STEPS, "about": {"bench": "robosuite"}}))
    scores = _score(root, tmp_path, modes=("own",))
    assert list(scores["status"]) == ["broken_clip", "missing_clip"]


def in_view(**changes: Any) -> Any:
    """Return a change of the first view."""
    return lambda stored: stored["observations"]["0_view_left"].update(changes)


BROKEN = {
    "no RGB": (lambda stored: stored["observations"]["0_view_left"].pop("rgb_path"), "lacks 'rgb_path'"),
    "start before 0": (in_view(start=-1), "'observations.0_view_left.start' must be the number of a frame"),
    "no rate": (in_view(fps=0), "'observations.0_view_left.fps' must be above 0"),
    "small matrix": (in_view(intrinsics=[[1.0]]), "'observations.0_view_left.intrinsics' has the shape (1, 1)"),
    "other kind": (in_view(type="dynamic"), "its views are ['dynamic', 'static', 'dynamic'], those of robosuite/Lift"),
    "other rate": (in_view(fps=10), "has 10 frames per second, robosuite/Lift takes 20 steps per second"),
    "no 8-bit depth": (in_view(depth_path="none.mp4"), "none.mp4 is missing or broken"),
    "late start": (in_view(start=1), "holds 26 frames, 26 from frame 1 on are needed"),
    "no task": (lambda stored: stored["about"].pop("task"), "'about' does not name the bench and task"),
    "other task": (lambda stored: stored["about"].update(task="Lft"), "Unknown task 'Lft'"),
    "seed as text": (lambda stored: stored["about"].update(seed="five"), "'about.seed' must be a whole number"),
    "no instruction": (lambda stored: stored.update(instructions=[]), "'instructions' must be a list of one or more"),
    "no rotation": (
        lambda stored: stored["proprios"].update(left_ee_rotm=[[0] * 9] * NUM_STEPS),
        "'proprios.left_ee_rotm' holds a rotation matrix that is not orthonormal",
    ),
    "reflection": (
        lambda stored: stored["proprios"].update(left_ee_rotm=[[-1, 0, 0, 0, 1, 0, 0, 0, 1]] * NUM_STEPS),
        "'proprios.left_ee_rotm' holds a reflection",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_episode_is_a_row(root: Path, tmp_path: Path, name: str) -> None:
    change, reason = BROKEN[name]
    first, _ = sorted(root.glob("data/*/*.json"))
    content = json.loads(first.read_text())
    change(content)
    first.write_text(json.dumps(content))
    scores = _score(root, tmp_path, modes=("own",))
    (row,) = scores[scores["metric"] == "clip"].itertuples()
    assert row.status == "broken_clip"
    assert reason in row.reason
    assert "episode_0000000" in row.reason
    assert scores[scores["index"] == 7]["value"].notna().any()


def test_an_episode_of_another_length_than_listed_is_a_row(root: Path, tmp_path: Path) -> None:
    lengths = json.loads((root / "metadata.json").read_text())
    (root / "metadata.json").write_text(json.dumps({key: count + 1 for key, count in lengths.items()}))
    scores = _score(root, tmp_path, modes=("own",))
    assert list(scores["status"]) == ["broken_clip"] * 2
    assert scores["reason"].str.contains("has 26 frames, metadata.json says 27").all()


def test_a_view_without_depth_is_named(root: Path, tmp_path: Path) -> None:
    for path in root.glob("data/*/*.json"):
        said = json.loads(path.read_text())
        del said["observations"]["0_view_left"]["depth_mm_path"]
        path.write_text(json.dumps(said))
    scores = _score(root, tmp_path, modes=("own",))
    depth = scores[(scores["metric"] == "absrel/gt_mask_10m") & (scores["subject"] == "policy")]
    assert set(zip(depth["view"], depth["status"], strict=True)) == {("view_left", "unavailable"), ("view_right", "ok")}


def test_without_actions_the_second_mode_says_so(root: Path, tmp_path: Path) -> None:
    for path in root.glob("data/*/*.json"):
        said = json.loads(path.read_text())
        del said["actions"]["executed"]
        path.write_text(json.dumps(said))
    scores = _score(root, tmp_path, modes=("recorded",))
    assert set(scores["status"]) == {"unavailable"}
    assert set(scores["reason"]) == {"the recording of this episode holds no executed actions"}


def test_what_is_no_recording_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="neither a run"):
        open_source(tmp_path)
    for path in root.glob("data/*/*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "about": {}}))
    with pytest.raises(BadConfig, match="no episode names under 'about' the bench"):
        open_source(root)
