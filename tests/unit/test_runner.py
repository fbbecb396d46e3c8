"""The runner with real worker processes and doubles in them: faults, resuming, kills."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from evalkit.contracts.errors import EvalkitError, SpecMismatch
from evalkit.contracts.types import PolicyReply, PolicyRequest
from evalkit.run.recorder import ClipRecorder
from evalkit.store.clips import ClipChunk, ClipReader, ClipWriter
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import open_run
from tests.doubles.bench import FakeEnv
from tests.doubles.known import known
from tests.doubles.policy import FakePolicy, FakePolicyConfig, FakePolicyPlugin
from tests.doubles.runs import run_fake as run

ROOT = Path(__file__).resolve().parents[2]


def hashes(records: list[EpisodeRecord]) -> dict[str, str | None]:
    return {record.key: record.actions_sha256 for record in records}


def test_every_planned_episode_is_recorded_once(tmp_path: Path) -> None:
    records = run(tmp_path)
    assert [r.key for r in records] == [f"{task}/{i:04d}" for task in ("Near", "Far") for i in range(3)]
    assert {r.outcome for r in records} == {"success"}
    assert run(tmp_path) == []


def test_the_loop_does_what_a_plain_loop_does(tmp_path: Path) -> None:
    """The same env and policy, stepped directly in this process, end in the same step with the same actions."""
    import hashlib

    (record,) = run(tmp_path, episodes=1, tasks=("Far",))
    episode = open_run(tmp_path).plan.episodes[0]
    env = FakeEnv(task="Far", fault="none", fault_seed=0, step_s=0)
    env.begin(seed=episode.seed, max_steps=episode.max_steps)
    policy = FakePolicy(FakePolicyConfig(), FakePolicyPlugin().spec(FakePolicyConfig()))
    executed: list[np.ndarray] = []
    done = False
    while not done:
        rng = np.random.default_rng([episode.seed, len(executed) // policy.spec.execute_steps])
        chunk = np.zeros((8, 14), np.float32)
        chunk[:, 0] = rng.uniform(0.5, 1.0, 8)
        for action in chunk:
            executed.append(action)
            done = env.advance(action)
            if done:
                break
    assert record.steps == len(executed)
    assert record.actions_sha256 == hashlib.sha256(np.stack(executed).tobytes()).hexdigest()


def test_workers_and_order_change_no_action(tmp_path: Path) -> None:
    one = run(tmp_path / "one", "run.workers=1")
    two = run(tmp_path / "two", "run.workers=2", "run.episodes_per_worker=1")
    assert hashes(one) == hashes(two)


def test_clips_hold_predictions_beside_what_happened(tmp_path: Path) -> None:
    (record,) = run(tmp_path, episodes=1, tasks=("Far",))
    env = FakeEnv(task="Far", fault="none", fault_seed=0, step_s=0)
    env.begin(seed=0, max_steps=20)
    seen = {0: env.observe(render=True)}
    for step in range(1, record.steps + 1):
        env.advance(np.zeros(14, np.float32))
        seen[step] = env.observe(render=True)
    assert record.clip is not None
    with ClipReader(tmp_path / record.clip) as clip:
        chunks = list(clip)
        assert clip.header.outcome == "success"
    assert [(c.step_idx, c.num_executed) for c in chunks] == [(0, 8), (8, record.steps - 8)]
    for chunk in chunks:
        np.testing.assert_array_equal(chunk.start.rgb_fvhwc_u8[0], seen[chunk.step_idx]["rgb"])
        for frame_idx, rgb in enumerate(chunk.true.rgb_fvhwc_u8):
            np.testing.assert_array_equal(rgb, seen[chunk.step_idx + 4 * (frame_idx + 1)]["rgb"])
        assert chunk.predicted is not None
        assert len(chunk.predicted.rgb) == 2
        assert len(chunk.true.rgb_fvhwc_u8) == chunk.num_executed // 4


def test_an_error_of_the_clip_thread_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(writer: ClipWriter, chunk: ClipChunk) -> None:
        raise MemoryError("no room for the clip")

    monkeypatch.setattr(ClipWriter, "add", failing)
    (record,) = run(tmp_path, episodes=1, tasks=("Far",))
    assert (record.outcome, record.blame, record.clip) == ("error", "harness", None)
    assert "MemoryError: no room for the clip" in known(record.reason)
    assert not list(tmp_path.glob("clips/*/*"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("clip")]


def test_only_frames_that_the_actions_reach_are_requested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[PolicyRequest] = []
    infer = FakePolicy.infer

    def noting(policy: FakePolicy, asked: Sequence[PolicyRequest]) -> list[PolicyReply]:
        requests.extend(asked)
        return infer(policy, asked)

    monkeypatch.setattr(FakePolicy, "infer", noting)
    (record,) = run(tmp_path, "bench.fake.max_steps=11", episodes=1, tasks=("Far",))
    assert [(r.step_idx, r.num_predicted_frames) for r in requests] == [(0, 2), (8, 0)]
    assert record.clip is not None
    with ClipReader(tmp_path / record.clip) as clip:
        first, last = clip
    assert len(known(first.predicted).rgb) == 2
    assert last.predicted is None


def test_a_video_shows_what_happened_above_what_was_imagined(tmp_path: Path) -> None:
    (record,) = run(tmp_path, episodes=1, tasks=("Far",))
    assert record.video is not None
    with av.open(tmp_path / record.video) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert frames[0].shape == (18 + 2 * 16, 3 * 2 * 24, 3)
    assert len(frames) >= 1 + record.steps // 4


@pytest.mark.parametrize(
    ("override", "blame", "reason", "attempts"),
    [
        ("bench.fake.fault=sleep", "env", "did not answer 'advance' within 1 s", 2),
        ("bench.fake.fault=die", "env", "ended with exit code 11", 2),
        ("bench.fake.fault=raise", "env", "RuntimeError: mj_step: unstable simulation", 1),
        ("bench.fake.fault=begin_raise", "env", "the kitchen burns", 1),
        ("bench.fake.fault=nan", "env", "proprio holds values that are not finite", 1),
        ("bench.fake.fault=wrong_size", "env", "rgb must be uint8 (3, 16, 24, 3), got uint8 (3, 18, 24, 3)", 1),
        ("bench.fake.fault=solved", "env", "already met at reset", 1),
        ("policy.fake.fault=raise", "policy", "ValueError: CUDA out of memory", 1),
        ("bench.fake.fault=unsendable", "env", "TypeError: object does not travel", 1),
        ("bench.fake.fault=no_state", "env", "the simulator state ['goal'] of the spec is missing", 1),
        ("policy.fake.fault=no_prediction", "policy", "a prediction must be a Prediction, got NoneType", 1),
        ("policy.fake.fault=nan_details", "policy", "details or timings are not JSON", 1),
        ("policy.fake.fault=object_details", "policy", "details or timings are not JSON", 1),
        ("policy.fake.fault=nan", "policy", "actions hold values that are not finite", 1),
        ("policy.fake.fault=wrong_shape", "policy", "actions must have shape (8, 14)", 1),
        ("policy.fake.fault=wrong_prediction", "policy", "predicted rgb must be", 1),
    ],
)
def test_a_fault_costs_one_episode(tmp_path: Path, override: str, blame: str, reason: str, attempts: int) -> None:
    records = run(tmp_path, override, "run.chunk_timeout_s=1", "run.max_attempts=2", tasks=("Near",))
    assert [r.outcome for r in records] == ["success", "error", "success"]
    assert (records[1].blame, records[1].attempts) == (blame, attempts)
    assert reason in (records[1].reason or "")
    assert (records[1].clip, records[1].video) == (None, None)
    clean = run(tmp_path / "clean", tasks=("Near",))
    assert hashes(records)["Near/0002"] == hashes(clean)["Near/0002"]


def test_a_fault_of_our_own_is_recorded_as_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: ClipRecorder, outcome: str) -> None:
        raise KeyError("a mistake of the recorder")

    monkeypatch.setattr(ClipRecorder, "on_end", broken)
    records = run(tmp_path, episodes=1, tasks=("Near",))
    assert [(r.outcome, r.blame) for r in records] == [("error", "harness")]
    assert "a mistake of the recorder" in (tmp_path / "logs" / "harness.log").read_text()


def test_no_reply_at_all_is_the_policys_fault(tmp_path: Path) -> None:
    records = run(tmp_path, "policy.fake.fault=no_reply", episodes=1, tasks=("Near",))
    assert [(r.outcome, r.blame) for r in records] == [("error", "policy")]
    assert "a list of one reply" in (records[0].reason or "")


def test_an_env_that_cannot_be_built_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(EvalkitError, match="cannot build its env: ImportError: no module named 'simulator'"):
        run(tmp_path / "a", "bench.fake.fault=start_raise")
    with pytest.raises(SpecMismatch, match="env_id is fake/Nearer, planned fake/Near"):
        run(tmp_path / "b", "bench.fake.fault=other_spec")
    with pytest.raises(EvalkitError, match="This policy refuses"):
        run(tmp_path / "c", "policy.fake.fault=refuse")


def test_a_worker_that_never_starts_is_an_error_of_the_env(tmp_path: Path) -> None:
    records = run(
        tmp_path,
        "bench.fake.fault=start_sleep",
        "run.start_timeout_s=0.5",
        "run.max_attempts=2",
        episodes=1,
        tasks=("Near",),
    )
    assert [(r.outcome, r.blame, r.attempts) for r in records] == [("error", "env", 2)]
    assert "did not answer 'make'" in (records[0].reason or "")


COMMAND = [
    *(sys.executable, "-m", "evalkit.cli", "run"),
    *("--bench", "tests.doubles.bench:FakeBench", "--policy", "tests.doubles.policy:FakePolicyPlugin"),
    *("--episodes", "20"),
    *("bench.fake.step_s=0.01", "run.workers=2", "run.max_attempts=9"),
]


def workers_of(pid: int) -> list[int]:
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in done.stdout.split()]


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def has_begun(process: subprocess.Popen[bytes]) -> bool:
    """Return whether the process has workers or has ended."""
    return bool(workers_of(process.pid)) or process.poll() is not None


def has_recorded(process: subprocess.Popen[bytes], records: Path, lines: int) -> bool:
    """Return whether the file has more lines than those, or the process has ended."""
    return num_lines(records) > lines or process.poll() is not None


def are_gone(pids: Sequence[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def _wait_for(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_ten_kills_lose_and_repeat_no_record(tmp_path: Path) -> None:
    undisturbed = subprocess.run([*COMMAND, "--out", str(tmp_path / "a")], cwd=ROOT, capture_output=True, check=False)
    assert undisturbed.returncode == 0, undisturbed.stderr
    rng = np.random.default_rng(0)
    records = tmp_path / "b" / "episodes.jsonl"
    for kill in range(10):
        process = subprocess.Popen([*COMMAND, "--out", str(tmp_path / "b")], cwd=ROOT, stdout=subprocess.DEVNULL)
        _wait_for(partial(has_begun, process))
        if kill % 2:  # every other kill comes in the middle of the episodes, the rest before
            _wait_for(partial(has_recorded, process, records, num_lines(records)))
        time.sleep(rng.uniform(0, 0.1))
        workers = workers_of(process.pid)
        victims = [[process.pid], workers, [process.pid, *workers]][kill % 3]
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if process.pid not in victims:
            time.sleep(0.2)
            workers = workers_of(process.pid)
            process.kill()
        process.wait()
        _wait_for(partial(are_gone, workers))
    assert 0 < num_lines(records) < 40, "the kills must have come in the middle"
    last = subprocess.run([*COMMAND, "--out", str(tmp_path / "b")], cwd=ROOT, capture_output=True, check=False)
    assert last.returncode == 0, last.stderr
    ours, theirs = open_run(tmp_path / "b").records(), open_run(tmp_path / "a").records()
    assert len(ours) == 40
    assert hashes(ours) == hashes(theirs)
    assert {r.outcome for r in ours} == {"success"}
    about = json.loads((tmp_path / "b" / "run.json").read_text())
    assert about["workers"]["fake/Near"]["renderer"] == "none"
    assert len(about["sessions"]) > 3


def test_an_interrupt_keeps_what_is_recorded(tmp_path: Path) -> None:
    command = [*COMMAND, "bench.fake.step_s=0.05", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    _wait_for(lambda: num_lines(tmp_path / "run" / "episodes.jsonl"))
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "run the same command again" in stderr
    assert "Traceback" not in stderr
    assert {r.outcome for r in open_run(tmp_path / "run").records()} == {"success"}
    assert len(open_run(tmp_path / "run").records()) < 40
