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
from evalkit.store.run_folder import open_run

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
    assert "Episodes are cut at 1 steps (bench.max_steps)." in plans[2].departures


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


def test_a_plugin_that_fails_on_import_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_plugin.py").write_text("x = 1\ny = x.nothing\n")
    monkeypatch.syspath_prepend(tmp_path)
    sentence = evalkit_says("plan", "--policy", "broken_plugin:Plugin")
    assert "(broken_plugin.py:2)" in sentence
    assert sentence.count("broken_plugin:Plugin") == 1
    assert "See CONTRIBUTING.md, 'Add a policy'." in evalkit_says("plan", "--policy", "builtins:dict")
