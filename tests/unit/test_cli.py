"""The command line: what users mistype ends in one sentence, exit code 2, no traceback."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.cli.main import VERBS, main

ROOT = Path(__file__).resolve().parents[2]
FAKE = ["--bench", "tests.doubles.bench:FakeBench", "--policy", "tests.doubles.policy:FakePolicyPlugin"]


def evalkit(*arguments: str, preexec_fn: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "evalkit.cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        check=False,
        preexec_fn=preexec_fn,
    )


def test_a_plan_says_that_nothing_is_predicted() -> None:
    done = evalkit("plan", *FAKE, "--tasks", "Near", "bench.max_steps=3")
    assert "3 executed steps reach no predicted frame (one every 4 steps): nothing is predicted." in done.stdout
    assert "nothing is predicted" not in evalkit("plan", *FAKE, "--tasks", "Near").stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["plan", "--bench", "robosuit"], "Unknown bench 'robosuit'. Did you mean 'robosuite'? Run `evalkit list`."),
        (["plan", "--policy", "xwan"], "Unknown policy 'xwan'. Did you mean 'xwam'?"),
        (["plan", "--policy", "hold", "--tasks", "Lft"], "Unknown task 'Lft'. Did you mean 'Lift'?"),
        (["plan", "--policy", "hold", "--setting", "rand"], "Unknown setting 'rand'. Did you mean 'randomized'?"),
        (["plan", *FAKE, "run.wokers=2"], "Unknown setting 'run.wokers'. Did you mean 'run.workers'?"),
        (["plan", *FAKE, "run.workers=two"], "Value 'two' of type 'str' could not be converted to Integer"),
        (["plan", *FAKE, "run.workers=0"], "run.workers must be from 1 to 1024, got 0."),
        (["plan", *FAKE, "workers"], "'workers' is not an override; write key=value"),
        (["plan", *FAKE, "--episodes", "0"], "at least 1 episode"),
        (["plan", *FAKE, "--tasks", "Near,,Far"], "--tasks takes names separated by commas"),
        (["plan", *FAKE, "bench.max_steps=true"], "bench.max_steps must be a whole number"),
        (["plan", "--policy", "json:dumps"], "cannot be imported: TypeError"),
        (["plan", "--policy", ":x"], "a target is written module:attribute"),
        (["plan", "--policy", "builtins:dict"], "is no policy plugin: it has no name, summary"),
        (["plan", "--policy", "xwam", "--tasks", "Lift,TwoArmLift"], "These tasks fit: --tasks Lift."),
        (["plan", "--tasks", "Lift", "policy.xwam.precision=half"], "precision must be one of auto, float32"),
        (["run", "--tasks", "Lift", "policy.xwam.device=foo", "--out", "TMP"], "policy.xwam.device=foo cannot be used"),
        (["plan", "--tasks", "Lift", "bench.robosuite.gl=glx"], "gl must be auto, egl or osmesa"),
        (["plan", "--bench", "no.such:Bench"], "cannot be imported: ModuleNotFoundError: No module named 'no'"),
        (
            ["run", *FAKE, "--out", "/proc/run"],
            "Cannot write /proc/run: No such file or directory. Choose another folder",
        ),
        (["report", "nowhere"], "nowhere does not exist"),
        (["record", "TMP", "Lift=two"], "'Lift=two' must be a task and its number of episodes, for example Lift=200."),
        (["record", "TMP", "bench.robosuite.gl=egl"], "Name at least one task and its number of episodes"),
        (["record", "TMP", "Lift=1", "bench.robosuite.gll=egl"], "Did you mean 'bench.robosuite.gl'?"),
        (["record", "TMP", "Lift=1", "policy.xwam.device=cpu"], "has no effect: --policy must name the policy."),
        (["record", "TMP", "CloseDrawer=1", "--bench", "robocasa"], "add bench.robocasa.art="),
        (["record", "TMP", "Near=1", *FAKE[:2]], "Bench 'fake' cannot be recorded"),
        (["replay", "TMP", "no.hdf5", "--bench", "robosuite"], "no.hdf5 does not exist"),
        (["score", "run", "nowhere"], "nowhere is not a run folder"),
        (["view", "nowhere.h5"], "nowhere.h5 does not exist; the clips of a run are RUN/clips/TASK/INDEX.h5."),
        (["view", "docs"], "docs is a folder; the clips of a run are"),
        (["score", "nowhere"], "`evalkit score` takes run, folders or dataset; write `evalkit score run nowhere`."),
        (["score", "PRED", "GT"], "write `evalkit score folders PRED GT`."),
        (["score", "docs", "tests"], "write `evalkit score folders docs tests`."),
        (["score", "--dataset", "x", "--policy", "hold"], "write `evalkit score dataset x --policy hold`."),
        (["score", "run", "run.workers=2"], "needs at least one run folder"),
    ],
)
def test_a_mistake_gets_one_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, which takes a hundredth of the time; `test_a_mistake_ends_the_process` starts one."""
    written = [str(tmp_path / "run") if argument == "TMP" else argument for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["evalkit", *written])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        main()
    stderr = capsys.readouterr().err
    assert stop.value.code == 2
    assert sentence in stderr
    assert len(stderr.strip().splitlines()) == 1


def test_a_mistake_ends_the_process() -> None:
    done = evalkit("plan", "--bench", "robosuit")
    assert done.returncode == 2
    assert "Unknown bench 'robosuit'." in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len(done.stderr.strip().splitlines()) == 1


def test_dry_run_repeats_the_hash_and_writes_nothing(tmp_path: Path) -> None:
    first = evalkit("plan", *FAKE, "--episodes", "4")
    dry = evalkit("run", *FAKE, "--episodes", "4", "--dry-run", "--out", str(tmp_path / "run"))
    assert first.returncode == dry.returncode == 0
    assert first.stdout.splitlines()[0] == dry.stdout.splitlines()[0]
    assert not (tmp_path / "run").exists()


def test_a_dry_recording_lists_what_is_missing(tmp_path: Path) -> None:
    done = evalkit("record", str(tmp_path / "data"), "Lift=30", "Door=5", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["missing  Lift: 30 of 30 episodes", "missing  Door: 5 of 5 episodes"]
    assert not (tmp_path / "data").exists()


def _small_disk(limit_bytes: int) -> Callable[[], None]:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return limit


def test_a_write_that_fails_stops_the_run_with_one_sentence(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: some record does not fit whole."""
    arguments = ["run", *FAKE, "--episodes", "30", "--tasks", "Near", "run.video=false", "run.clips=false"]
    folder = tmp_path / "run"
    records = folder / "episodes.jsonl"
    done = evalkit(*arguments, "--out", str(folder), preexec_fn=_small_disk(12_000))
    assert done.returncode == 2, done.stdout
    assert f"Cannot write {records}: File too large. Nothing recorded so far is lost" in done.stderr
    assert "Traceback" not in done.stderr
    kept = records.read_bytes()
    assert kept.endswith(b"}\n")
    assert 0 < len(kept.splitlines()) < 30
    assert evalkit(*arguments, "--out", str(folder)).returncode == 0
    assert records.read_bytes().startswith(kept)
    assert len(records.read_bytes().splitlines()) == 30


def test_videos_that_fit_on_no_disk_cost_no_result(tmp_path: Path) -> None:
    arguments = ["run", *FAKE, "--episodes", "1", "run.clips=false", "--out", str(tmp_path / "run")]
    done = evalkit(*arguments, preexec_fn=_small_disk(6_000))
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run" / "episodes.jsonl").read_text().splitlines()
    assert [json.loads(line)["outcome"] for line in lines] == ["success"] * 2
    assert all("No video: Cannot write" in json.loads(line)["warnings"][0] for line in lines)
    assert sum(line.startswith("No video: Cannot write") for line in done.stdout.splitlines()) == 1
    assert "2 episodes of 2 with a warning, for example Near/0000: No video" in done.stdout


def test_run_score_and_report_in_a_row(tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    done = evalkit("run", *FAKE, "--episodes", "2", "--out", folder, "bench.fake.fault=raise")
    assert done.returncode == 0, done.stderr
    assert "RuntimeError: mj_step: unstable simulation" in done.stdout
    again = evalkit("run", *FAKE, "--episodes", "2", "--out", folder, "bench.fake.fault=raise")
    assert "nothing to do" in again.stdout
    assert evalkit("score", "run", folder, "--lpips", "none", "--workers", "1").returncode == 0
    report = evalkit("report", folder)
    assert report.returncode == 0, report.stderr
    assert (tmp_path / "run" / "scores.parquet").exists()
    text = (tmp_path / "run" / "report" / "report.md").read_text()
    assert "Near" in text
    assert "unstable simulation" in text


def test_help_has_examples() -> None:
    for verb in (
        "list",
        "plan",
        "check",
        "run",
        "score",
        "score run",
        "score folders",
        "score dataset",
        "report",
        "record",
        "replay",
    ):
        done = evalkit(*verb.split(), "--help")
        assert done.returncode == 0
        assert f"evalkit {verb} " in done.stdout
    assert evalkit("doctor", "--help").returncode == 0
    assert "clips/TASK/INDEX.h5" in evalkit("view", "--help").stdout


def test_help_lists_verbs_in_the_order_of_their_use() -> None:
    lines = [line.split() for line in evalkit("--help").stdout.splitlines()]
    listed = [words[1] for words in lines if len(words) > 2 and words[1] in VERBS]
    assert listed == [
        "list",
        "vet",
        "plan",
        "check",
        "run",
        "merge",
        "serve",
        "score",
        "report",
        "view",
        "record",
        "replay",
        "doctor",
    ]


def test_check_names_the_task_that_does_not_work() -> None:
    assert evalkit("check", *FAKE).returncode == 0
    done = evalkit("check", *FAKE, "bench.fake.fault=solved", "bench.fake.fault_seed=0", "--tasks", "Far")
    assert done.returncode == 2
    assert "already met at reset" in done.stdout
    assert "1 of 1 task failed: Far" in done.stderr


def test_every_key_that_is_shown_can_be_given_back() -> None:
    shown = evalkit("list", "--bench", "robosuite", "--policy", "xwam").stdout
    keys = [line.removeprefix("key       ") for line in shown.splitlines() if line.startswith("key ")]
    assert len(keys) > 15
    done = evalkit("plan", "--tasks", "Lift", *keys)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == evalkit("plan", "--tasks", "Lift").stdout.splitlines()[0]


def test_reasons_with_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    done = evalkit("run", *FAKE, "--episodes", "2", "--out", str(tmp_path), "policy.fake.fault=raise")
    assert done.returncode == 0, done.stderr
    assert "CUDA out of memory on [/dev/nvidia0], say" in done.stdout


def test_a_run_without_any_result_says_so(tmp_path: Path) -> None:
    arguments = [*FAKE, "--episodes", "2", "--tasks", "Near", "policy.fake.fault=raise", "policy.fake.fault_seed=-1"]
    done = evalkit("run", *arguments, "--out", str(tmp_path))
    assert done.returncode == 2
    assert "No planned episode ended in success or failure" in done.stderr


def test_a_policy_that_always_fails_stops_the_run(tmp_path: Path) -> None:
    arguments = [*FAKE, "--episodes", "20", "policy.fake.fault=raise", "policy.fake.fault_seed=-1"]
    done = evalkit("run", *arguments, "--out", str(tmp_path))
    assert done.returncode == 2
    assert len((tmp_path / "episodes.jsonl").read_bytes().splitlines()) == 3
    (sentence,) = done.stderr.strip().splitlines()
    assert "3 episodes in a row ended in the same error (policy): ValueError: CUDA out of memory" in sentence
    assert f"Its traceback is in {tmp_path / 'logs' / 'policy.log'}." in sentence
    assert "it runs the 37 missing episodes." in sentence


def test_a_missing_video_is_one_warning(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert evalkit("run", *FAKE, "--episodes", "1", "--tasks", "Near", "--out", str(folder)).returncode == 0
    (folder / "episodes.jsonl").unlink()
    (folder / "videos" / "Near" / "0000.mp4").unlink()
    (folder / "videos" / "Near").rmdir()
    (folder / "videos" / "Near").touch()
    done = evalkit("run", *FAKE, "--episodes", "1", "--tasks", "Near", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    assert sum(line.startswith("No video: Cannot write") for line in done.stdout.splitlines()) == 1


def test_commands_of_the_readme_are_accepted() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert not {"TABLE", "TODO"} & set(lines)
    commands = [line.partition("#")[0].split()[1:] for line in lines if line.startswith("evalkit run")]
    assert commands
    for command in commands:
        done = evalkit("plan", *command[1:])
        assert done.returncode == 0, done.stderr
