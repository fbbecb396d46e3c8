"""`evalkit record` and `evalkit replay`: exit codes, what they print, and the help of every verb.

In: doubles of recorder and replay, a bench without physics, a file without a usable demonstration. Out: a verdict.
Read next: `evalkit/cli/data.py`.
"""

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import pytest
import typer

from evalkit.cli.main import app as evalkit_app
from evalkit.cli.main import main
from evalkit.dataset.layout import scan
from evalkit.record import pool, workers
from evalkit.record.workers import Recorded
from evalkit.replay import jobs as replays
from xwam.cli import app as xwam_app

BENCH, POLICY = "tests.doubles.bench:RecordableFakeBench", "tests.doubles.policy:FakePolicyPlugin"
ROOT = Path(__file__).resolve().parents[2]


class Done(NamedTuple):
    """How a command ended."""

    exit_code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def evalkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: Any) -> Done:
        monkeypatch.setattr(sys, "argv", ["evalkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert isinstance(stop.value.code, int)
        return Done(stop.value.code, *capsys.readouterr())

    return run


class Recorder:
    """A double of `workers.record`."""

    def __init__(self, faults: tuple[str, ...], interruptions: tuple[str, ...]) -> None:
        self.said: Any = {"faults": faults, "interruptions": interruptions}

    def __call__(self, root: Path, jobs: Sequence[Any], *, workers: int, on_job: Any) -> Recorded:
        self.numbers, self.workers = [len(job.numbers) for job in jobs], workers
        for job in jobs:
            on_job(job, None)
        return Recorded(kept=21, tried=25, **self.said, lengths={"a": 70, "b": 9}, num_failed=4)


RAISED = "Lift, seed 3, 7: robosuite/Lift: KeyError: 'cube'."
ENDED = "Lift, from seed 20 on: the worker died."


@pytest.mark.parametrize(
    ("faults", "interruptions", "exit_code"),
    [((), (), 0), ((RAISED,), (), 1), ((), (ENDED,), 3), ((RAISED,), (ENDED,), 3)],
)
def test_recording_prints_counts_and_faults(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    evalkit: Run,
    faults: tuple[str, ...],
    interruptions: tuple[str, ...],
    exit_code: int,
) -> None:
    recorder = Recorder(faults, interruptions)
    monkeypatch.setattr(workers, "record", recorder)
    done = evalkit("record", tmp_path, "Lift=25", "--workers", "2")
    assert done.exit_code == exit_code
    lines = done.out.splitlines()
    summary = f"{tmp_path}: 21 of 25 recorded now; 2 episodes, 79 frames in all; 4 seeds gave no episode"
    assert lines[-1] == summary + ("; run the same command again for what was interrupted" if interruptions else "")
    assert [line for line in lines if line.startswith("not recorded")] == [f"not recorded: {f}" for f in faults]
    assert [line for line in lines if line.startswith("interrupted")] == [f"interrupted: {i}" for i in interruptions]
    assert "25/25" in done.out
    assert (recorder.numbers, recorder.workers, done.err) == ([20, 5], 2, "")


def test_a_bench_without_physics_is_recorded(tmp_path: Path, evalkit: Run) -> None:
    """In real processes: the command, the recorder, a worker and the writer."""
    command = ["record", tmp_path, "Near=2", "--bench", BENCH, "--policy", POLICY]
    done = evalkit(*command)
    assert done.exit_code == 0, done
    frames = sum(scan(tmp_path).lengths.values())
    assert f"2 of 2 recorded now; 2 episodes, {frames} frames in all; 0 seeds gave no episode" in done.out
    assert not scan(tmp_path).broken
    about = json.loads(next((tmp_path / "data").rglob("*0.json")).read_text())["about"]
    assert (about["bench"], about["policy"], about["policy_settings"], about["seed"]) == (BENCH, POLICY, {}, 0)
    assert "0 of 0 recorded now; 2 episodes" in evalkit(*command).out
    died = evalkit("record", tmp_path, "Far=2", *command[3:], "bench.fake.fault=die", "bench.fake.fault_seed=-1")
    assert died.exit_code == 3
    assert "interrupted: Far, from seed 0 on: fake/Far: the worker ended with exit code 11." in died.out
    assert "0 of 0 recorded now; 2 episodes" in died.out


def test_a_recording_that_cannot_be_written_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evalkit: Run
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workers, "write_metadata", full)
    monkeypatch.setattr(workers, "run_jobs", lambda *_, **__: [])
    done = evalkit("record", tmp_path, "Lift=1")
    assert done.exit_code == 2
    assert "No space left on device. Whole episodes are kept; remove the cause and run the same" in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["Lift"], "for example Lift=200"),
        (["Lift=1", "--policy", "nothing"], "Unknown policy 'nothing'"),
        (["Lift=1", "--policy", "xwam", "policy.xwam.speed=3"], "Unknown setting 'policy.xwam.speed'"),
        (["Lift=1", "--policy", "xwam", "--refuse", "anything"], "leave out --refuse, or --policy xwam"),
        (["Lift=1", "--first-number", "-1"], "must be 0 or more"),
        (["Lift=1", "--refuse", "Nope"], "--refuse Nope: in the scene of Lift only these can be refused: "),
        (["Lift=1", "--max-steps", "0"], "--max-steps 0 must be 1 or more"),
        (["Lift=1", "--take-over", "9"], "--policy must name the policy"),
        (["Lift=1", "--policy", "xwam", "--take-over", "0"], "must be 1 or more"),
        (["Lift=1", "--policy", "hold", "--take-over", "9", "--refuse", "anything"], "leave out --refuse"),
    ],
)
def test_mistakes_of_a_recording_are_one_sentence(
    tmp_path: Path, evalkit: Run, arguments: list[str], sentence: str
) -> None:
    done = evalkit("record", tmp_path, *arguments)
    assert done.exit_code == 2
    assert sentence in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_workers_below_one_are_refused(tmp_path: Path, evalkit: Run) -> None:
    for command in (["record", tmp_path, "Lift=1"], ["replay", tmp_path, "x.hdf5", "--bench", "robosuite"]):
        done = evalkit(*command, "--workers", "0")
        assert done.exit_code == 2
        assert "Invalid value for '--workers'" in done.err


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    """Return a robomimic file of Lift whose two demonstrations hold nothing."""
    path = tmp_path / "lift.hdf5"
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps({"env_name": "Lift"})
        file.create_group("data/demo_2")
        file.create_group("data/demo_10")
    return path


NO_DEPTH = "lift.hdf5, demo_2: frame 4: view 0 has no depth."
DIED = "lift.hdf5, demo_10: the worker was killed by SIGKILL."


@pytest.mark.parametrize(
    ("reasons", "interruptions", "exit_code"),
    [((), (), 0), ((NO_DEPTH,), (), 1), ((), (DIED,), 3), ((NO_DEPTH,), (DIED,), 3)],
)
def test_a_replay_prints_counts_and_reasons(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    evalkit: Run,
    demos: Path,
    reasons: tuple[str, ...],
    interruptions: tuple[str, ...],
    exit_code: int,
) -> None:
    calls: list[Any] = []

    def replay(root: Path, jobs: Sequence[Any], *, workers: int, on_job: Any) -> replays.Replayed:
        calls.append(([job.name for job in jobs], jobs[0].ee_tolerance_m, workers))
        for job in jobs:
            on_job(job, None)
        return replays.Replayed(
            written=1,
            reasons=reasons,
            interruptions=interruptions,
            warnings=("lift.hdf5, demo_2: its arm's actions leave [-1, 1].",),
            lengths={"a": 70, "b": 9},
            num_unreproduced=3,
        )

    monkeypatch.setattr(replays, "replay", replay)
    root = tmp_path / "data"
    options = ["--bench", "robosuite", "--workers", "2", "--end-effector-tolerance-mm", "5"]
    done = evalkit("replay", root, demos, *options)
    assert done.exit_code == exit_code
    lines = done.out.splitlines()
    assert lines[-1] == (
        f"{root}: 1 of 2 replayed now; 2 episodes, 79 frames in all; 3 demonstrations cannot be reproduced"
    ) + ("; run the same command again for what was interrupted" if interruptions else "")
    assert [line for line in lines if line.startswith("left out")] == [f"left out: {r}" for r in reasons]
    assert [line for line in lines if line.startswith("interrupted")] == [f"interrupted: {r}" for r in interruptions]
    assert [line for line in lines if line.startswith("warning: lift")]
    assert "2/2" in done.out
    assert (calls, done.err) == ([(["demo_2", "demo_10"], 0.005, 2)], "")


class Threads(ThreadPoolExecutor):
    """A pool in this process, which takes a tenth of the time."""

    def __init__(self, workers: int, **_: Any) -> None:
        super().__init__(workers)


def test_what_cannot_be_replayed_is_left_out_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evalkit: Run, demos: Path
) -> None:
    monkeypatch.setattr(pool, "ProcessPoolExecutor", Threads)
    command = ["replay", tmp_path / "data", demos, "--bench", "robosuite"]
    dry = evalkit(*command, "--dry-run")
    assert dry.exit_code == 0
    assert f"  Lift: demo_2 of {demos}" in dry.out
    assert f"missing in {tmp_path / 'data'}: 2 demonstrations" in dry.out
    assert not (tmp_path / "data").exists()
    done = evalkit(*command)
    assert done.exit_code == 1
    assert f"left out: {demos}, demo_2: it has no attribute model_file" in done.out
    assert "0 of 2 replayed now; 0 episodes, 0 frames in all; 2 demonstrations cannot be reproduced" in done.out
    again = evalkit(*command)
    assert again.exit_code == 1
    assert "left out: 2 demonstrations that could not be reproduced before, see " in again.out
    assert "0 of 0 replayed now; 0 episodes, 0 frames in all; 2 demonstrations cannot be reproduced" in again.out


def test_mistakes_of_a_replay_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evalkit: Run, demos: Path
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(replays, "write_metadata", full)
    monkeypatch.setattr(replays, "run_jobs", lambda *_, **__: [])
    for arguments, sentence in (
        ([demos, "--bench", "robosuite"], "No space left on device. Whole episodes are kept"),
        ([demos, "--bench", "robosuite", "--task", "Pour"], "is of the task Pour, which 'robosuite' does not have"),
        ([demos, "--bench", BENCH], "Bench 'fake' cannot replay states: its plugin says so (its `replay` is None)."),
        ([demos, "--bench", "robosuite", "bench.robosuite.pixels=3"], "Unknown setting 'bench.robosuite.pixels'"),
    ):
        done = evalkit("replay", tmp_path / "data", *arguments)
        assert done.exit_code == 2
        assert sentence in done.err
        assert len(done.err.strip().splitlines()) == 1


def verbs(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the verbs of a command line with their full names."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for verb, child in command.commands.items():
        yield from verbs(child, f"{name} {verb}")


@pytest.mark.parametrize(("app", "name"), [(evalkit_app, "evalkit"), (xwam_app, "xwam")])
def test_every_argument_and_every_verb_has_a_help_text(app: typer.Typer, name: str) -> None:
    listed = dict(verbs(typer.main.get_command(app), name))
    assert len(listed) >= 10
    without_help = [
        f"{verb} {parameter.name}"
        for verb, command in listed.items()
        for parameter in command.params
        if not getattr(parameter, "help", None)
    ]
    assert without_help == []
    examples = {verb: str(command.help).partition("Example")[2] for verb, command in listed.items()}
    assert [verb for verb, text in examples.items() if f"`{verb}" not in text] == []
