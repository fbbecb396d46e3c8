"""What the command line says about mistakes, faults and missing parts; each in this process.

In: command lines on doubles. Out: a verdict on their sentences and exit codes.
Read next: `evalkit/cli/`, `test_cli.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import evalkit
from evalkit.cli.main import app
from evalkit.contracts.errors import EvalkitError
from evalkit.dataset.writer import episode_key
from evalkit.record.demonstrate import Disturbance
from evalkit.record.notes import write_note
from evalkit.record.plan import FAILED, about_of, jobs
from evalkit.record.refusals import number_of_first
from evalkit.store.run_folder import open_run
from tests.doubles.configured import bench_of
from xwam.cli import main as xwam

BENCH, POLICY = "tests.doubles.bench:FakeBench", "tests.doubles.policy:FakePolicyPlugin"
FAKE = ["--bench", BENCH, "--policy", POLICY]


def evalkit_says(*arguments: str) -> str:
    """Return the sentence of a mistake."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code != 0
    return str(result.exception) if isinstance(result.exception, EvalkitError) else result.output


def test_a_limit_that_shortens_nothing_is_no_departure() -> None:
    bench, policy = evalkit.load_bench(BENCH), evalkit.load_policy(POLICY)
    plans = [evalkit.make_plan(bench, policy, num_episodes=1, max_steps=steps) for steps in (None, 100_000, 1)]
    assert plans[0].sha256 == plans[1].sha256
    assert "Episodes are cut at 1 step (bench.max_steps)." in plans[2].departures


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--episodes", "0"], "A plan needs at least 1 episode per task, got 0 (--episodes)."),
        (["--seed", "-1"], "The seed must be 0 or more, got -1 (--seed)."),
        (["bench.max_steps=0"], "An episode needs at least 1 step, got bench.max_steps=0."),
    ],
)
def test_each_number_has_a_sentence_of_its_own(arguments: list[str], sentence: str) -> None:
    assert evalkit_says("plan", *FAKE, *arguments) == sentence


def test_a_policy_that_raises_leaves_its_traceback(tmp_path: Path) -> None:
    bench, policy = evalkit.load_bench(BENCH), evalkit.load_policy(POLICY, fault="raise", fault_seed=-1)
    plan = evalkit.make_plan(bench, policy, tasks=["Near"], num_episodes=1)
    folder = open_run(evalkit.run_plan(plan, bench, policy, tmp_path / "run"))
    assert "(policy.py:" in str(folder.records()[0].reason)
    assert "logs/policy.log" in str(folder.records()[0].reason)
    assert "in _reply" in (folder.path / "logs" / "policy.log").read_text()


def test_a_policy_that_cannot_be_loaded_is_one_sentence(tmp_path: Path) -> None:
    bench, policy = evalkit.load_bench(BENCH), evalkit.load_policy(POLICY, fault="make")
    plan = evalkit.make_plan(bench, policy, num_episodes=1)
    with pytest.raises(EvalkitError) as caught:
        evalkit.run_plan(plan, bench, policy, tmp_path / "api")
    said = ["run", *FAKE, "--out", str(tmp_path / "cli"), "policy.fake.fault=make"]
    for name, sentence in (("api", str(caught.value)), ("cli", evalkit_says(*said))):
        assert sentence.startswith("Policy 'fake' cannot be loaded: RuntimeError: size mismatch for blocks.0.weight (")
        assert "policy.py:" in sentence
        assert sentence.endswith("(traceback in logs/policy.log).")
        assert "in make\n" in (tmp_path / name / "logs" / "policy.log").read_text()
    assert "logs/" not in evalkit_says("check", *FAKE, "policy.fake.fault=make")


def test_a_plugin_that_fails_on_import_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_plugin.py").write_text("x = 1\ny = x.nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    sentence = evalkit_says("plan", "--policy", "broken_plugin:Plugin")
    assert "(broken_plugin.py:2)" in sentence
    assert sentence.count("broken_plugin:Plugin") == 1
    assert "See docs/write_a_policy.md." in evalkit_says("plan", "--policy", "builtins:dict")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["plan", *FAKE, "Near"], "'Near' is a task; write --tasks Near."),
        (["plan", *FAKE, "--tasks", "Near,", "Far"], "separated by commas without spaces: --tasks Near,Far."),
        (["run", *FAKE, "--workers", "2"], "Write run.workers=VALUE, without --"),
        (["plan", *FAKE, "--episodes", "two"], "got 'two'"),
        (["plan", "--policy", "hold", "bench.robosuite.image_hw_px=64"], "must be a list, for example [64,64]"),
        (["plan", "--policy", "hold", "bench.robosuite.max_steps=9"], "Did you mean 'bench.max_steps'?"),
        (["plan", "--policy", "hold", "policy.xwam.threads=2"], "the policy is 'hold'; add --policy xwam."),
        (["record", "TMP", "Lift=1", "bench.max_steps=20"], "here write --max-steps 20."),
        (["record", "TMP", "Lift=1", "--policy", "hold", "--take-over", "0"], "--take-over 0 must be 1 or more."),
        (["replay", "TMP", "no.hdf5", "--bench", "robosuite"], "no.hdf5 does not exist"),
        (
            ["replay", "TMP", "no.hdf5", "--bench", "robosuite", "--end-effector-tolerance-mm", "nan"],
            "--end-effector-tolerance-mm must be from 0 to 1000 mm, got nan.",
        ),
        (["record", "TMP", "Lift=1", "--workers", "2000"], "less than or equal to 1024"),
    ],
)
def test_a_mistake_names_what_to_write(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    written = [str(tmp_path) if argument == "TMP" else argument for argument in arguments]
    said = " ".join(evalkit_says(*written).replace("│", " ").split())
    assert sentence in said


def test_a_choice_that_does_not_exist_is_named_once() -> None:
    said = evalkit_says("score", "dataset", "x", "--policy", "hold", "--actions", "mine")
    assert "Value error" not in said
    assert said.count("mine") == 1


def test_no_data_set_is_mixed_with_a_run(tmp_path: Path) -> None:
    (tmp_path / "plan.json").touch()
    for command in (["record", str(tmp_path), "Lift=1"], ["replay", str(tmp_path), "x.hdf5", "--bench", "robosuite"]):
        assert "is a run folder: it holds plan.json" in evalkit_says(*command)


def test_seeds_without_an_episode_are_an_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = tmp_path / FAILED / episode_key(number_of_first(evalkit.load_bench("robosuite").recordable, "Lift", None))
    bench = bench_of("robosuite")
    (job,) = jobs(tmp_path, bench, {"Lift": 1}, setting="default", disturbance=Disturbance())
    write_note(failed, about_of(job, job.seeds[0]), "the expert failed")
    command = ["record", str(tmp_path), "Lift=1"]
    said = "Lift: 0 of 1 episode; the expert failed on 1 seed. Ask for more episodes"
    dry = CliRunner().invoke(app, [*command, "--dry-run"])
    assert (dry.exit_code, said in dry.output) == (0, True)
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, said in done.output) == (1, True)


def test_check_names_a_problem_once_for_all_its_tasks() -> None:
    result = CliRunner().invoke(app, ["check", *FAKE, "policy.fake.fault=no_reply"])
    assert result.output.count("a list of one reply") == 1
    assert "2 of 2 tasks failed: Near, Far." in str(result.exception)


def test_a_plan_shows_one_fact_of_the_policy_per_line() -> None:
    lines = CliRunner().invoke(app, ["plan", *FAKE]).output.splitlines()
    assert lines[1:3] == ["policy   fake", "         weights: none"]


def test_xwam_names_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, sentence in (
        (["check-data", str(tmp_path / "no")], "does not exist."),
        (["import-lerobot", str(tmp_path), str(tmp_path / "out")], "is not a LeRobot data set"),
    ):
        assert xwam(command) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "d", "r", "--minutes", "-1"], "--minutes must be from 0 to 525600, got -1.0."),
        (["train", "d", "r", "--minutes", "nan"], "--minutes must be from 0 to 525600, got nan."),
        (["train-decoder", "d", "nano", "o", "--perceptual", "nan"], "--perceptual must be from 0 to 1000, got nan."),
        (["train-decoder", "d", "nano", "o", "--learning-rate", "-1"], "--learning-rate must be from 0 to 1000"),
        (["average", "nano", "nano", "o", "--share", "nan"], "must lie between 0 and 1, got nan."),
    ],
)
def test_numbers_of_xwam_have_bounds(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert xwam(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_a_choice_of_xwam_is_named_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    assert xwam(["convert", "a", "b", "--to", "foo"]) == 2
    said = capsys.readouterr().err
    assert "'foo' is not one of" in said
    assert "Value error" not in said


def test_a_run_names_only_what_it_wrote(tmp_path: Path) -> None:
    command = ["run", *FAKE, "--episodes", "1", "--tasks", "Near", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*command, "run.clips=false", "run.video=false"])
    assert f"records: {tmp_path / 'run'}" in result.output.splitlines()


@pytest.mark.parametrize("command", [["plan"], ["check", "--static"]])
def test_bare_commands_take_the_tasks_that_fit(command: list[str]) -> None:
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    assert "left out TwoArmLift, TwoArmHandover: robosuite/TwoArmLift and policy 'xwam/xwam-nano'" in result.output


def test_a_bare_plan_is_that_of_the_tasks_that_fit() -> None:
    bare = CliRunner().invoke(app, ["plan"]).output.splitlines()
    named = CliRunner().invoke(app, ["plan", "--tasks", "Lift,Stack,Door,PickPlaceCan,NutAssemblySquare"])
    assert [line for line in bare if not line.startswith("left out")] == named.output.splitlines()
