"""Examples of help texts, pages and the Makefile: each is a command that is accepted, and most are planned.

In: docstrings of verbs, code blocks of pages, `make -n`. Out: a verdict on each command.
Read next: `../sim/test_help_examples.py`, which runs the examples of the help texts.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from envs.robotwin.bench import ROOT_VARIABLE
from evalkit.cli.main import app as evalkit_app
from evalkit.config import bind_bench, bind_policy, load_config
from evalkit.contracts import plugins
from tests.doubles.examples import Example, examples_in_help, examples_in_page
from tests.doubles.robotwin_checkout import write_checkout, write_double_manifest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *("README.md", "docs/data.md", "docs/robocasa.md", "docs/robotwin.md", "docs/scoring.md", "docs/xwam.md"),
    "results/nano/README.md",
)


MODELS = ("uwm", "dreamzero", "joint_attention", "video_in_training")


def examples_of_make(*variables: str) -> list[Example]:
    """Return the commands of evalkit that the targets of the Makefile run."""
    targets = ["eval", "eval-robocasa", "eval-robotwin"]
    done = subprocess.run(["make", "-n", *targets, *variables], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.removeprefix(".venv/bin/") for line in done.stdout.splitlines()]
    return [Example.of(line, where="Makefile") for line in lines if line.startswith("evalkit ")]


EXAMPLES = [
    *examples_in_help(),
    *(each for page in PAGES for each in examples_in_page(ROOT / page)),
    *examples_of_make(),
    *(example for name in MODELS for example in examples_of_make(f"POLICY={name}")),
]


@pytest.fixture(scope="module")
def robotwin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A double of RoboTwin's checkout, and a manifest of as many episodes as its protocol has."""
    folder = tmp_path_factory.mktemp("robotwin")
    write_checkout(folder / "RoboTwin")
    write_double_manifest(folder, count=100)
    return folder


def test_every_verb_has_an_example() -> None:
    verbs = {example.verb for example in examples_in_help()}
    assert verbs >= {"list", "plan", "check pair", "check policy", "check bench", "run"}
    assert verbs >= {"report", "view", "record", "replay", "doctor"}
    assert verbs >= {"score run", "score folders", "score dataset", "train", "show", "convert", "speed"}
    assert len(EXAMPLES) > 60


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_flags_and_settings_of_an_example_exist(example: Example) -> None:
    example.parse()
    if example.verb in ("plan", "check pair", "run"):
        bench, policy = (plugins.load_bench(example.bench), plugins.load_policy(example.policy))
        assert load_config(bench, policy, example.overrides)
    elif example.verb == "train":
        from xwam.training.recipes import recipe_of

        assert recipe_of(example.option("--recipe", "nano"), example.overrides)
    else:
        of_bench = [text for text in example.overrides if text.startswith("bench.")]
        assert bind_bench(example.bench, of_bench)
        assert bind_policy(example.policy, [text for text in example.overrides if text.startswith("policy.")])


@pytest.mark.parametrize(
    "example",
    [
        example
        for example in EXAMPLES
        if example.verb in ("plan", "check pair", "run", "record") and not example.is_remote
    ],
    ids=str,
)
def test_an_example_can_be_planned(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    if example.bench == "robotwin":
        folder = request.getfixturevalue("robotwin")
        monkeypatch.chdir(folder)
        monkeypatch.setenv(ROOT_VARIABLE, str(folder / "RoboTwin"))
    words = example.planned()
    if example.bench == "robotwin" and "--dry-run" in example.words and example.policy == "xwam":
        words.insert(1, "policy.xwam.checkpoint=random-nano-robotwin")  # a dry run takes it, a plan does not
    result = CliRunner().invoke(evalkit_app, words)
    assert result.exit_code == 0, (result.output, result.exception)


@pytest.mark.parametrize("name", ["xwam", *MODELS])
def test_make_runs_a_checkpoint_on_a_device_with_a_tokenizer(name: str) -> None:
    variables = [f"POLICY={name}", "CHECKPOINT=mine.safetensors", "EVAL_DEVICE=cuda:1", "EVAL_TOKENIZER=Wan2.2"]
    runs = [each for each in examples_of_make(*variables) if each.verb == "run" and each.policy == name]
    assert [each.bench for each in runs] == ["robosuite", "robocasa", "robotwin"]
    for each in runs:
        settings = {f"policy.{name}.{text}" for text in ("checkpoint=mine.safetensors", "device=cuda:1")}
        assert settings | {f"policy.{name}.tokenizer=Wan2.2"} <= set(each.overrides)


def test_make_takes_no_checkpoint_for_a_policy_without_weights() -> None:
    command = ["make", "-n", "eval", "POLICY=hold", "CHECKPOINT=mine.safetensors"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "CHECKPOINT is for policies with weights: xwam uwm dreamzero" in done.stderr
    command[3] = "POLICY=two_stage"
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert """'policy.two_stage.inner_settings=["checkpoint=FILE"]'""" in done.stderr


def test_targets_that_pages_name_exist() -> None:
    made = subprocess.run(["make", "-pn", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for page in (*PAGES, "CONTRIBUTING.md"):
        for line in (ROOT / page).read_text().splitlines():
            words = line.partition("#")[0].split()
            if words[:1] == ["make"]:
                assert f"\n{words[1]}:" in made, f"{page}: {line}"
