"""evalkit from Python: the example in the package's docstring runs, and mistakes are sentences.

In: doubles. Out: a verdict.
Read next: `evalkit/api.py`.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import evalkit
from evalkit.contracts.errors import BadConfig, UnknownName
from evalkit.store.run_folder import open_run

ROOT = Path(__file__).resolve().parents[2]
BENCH, POLICY = "tests.doubles.bench:FakeBench", "tests.doubles.policy:FakePolicyPlugin"


def test_the_documented_example_runs_with_doubles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evalkit.__doc__ is not None
    lines = [line[4:] for line in evalkit.__doc__.splitlines() if line.startswith("    ")]
    code = "\n".join(lines)
    assert all(line in (ROOT / "README.md").read_text() for line in lines)
    changes = {"robosuite": BENCH, "xwam": POLICY, "Lift": "Near", "results/runs/mine": str(tmp_path / "run")}
    for name, double in changes.items():
        assert f'"{name}"' in code
        code = code.replace(f'"{name}"', f'"{double}"')
    exec(compile(code, "the example", "exec"), {"__name__": "__main__"})
    assert "report.md" in capsys.readouterr().out
    assert [record.outcome for record in open_run(tmp_path / "run").records()] == ["success", "success"]
    assert (tmp_path / "run" / "scores.parquet").exists()
    assert (tmp_path / "run" / "report" / "report.md").exists()


def test_an_unknown_setting_gets_a_suggestion() -> None:
    with pytest.raises(UnknownName, match=r"Unknown setting 'falt'\. Did you mean 'fault'"):
        evalkit.load_bench(BENCH, falt="none")
    with pytest.raises(UnknownName, match=r"Unknown setting 'falt'\. Did you mean 'fault'"):
        evalkit.load_policy(POLICY, falt="none")


def test_settings_are_checked_as_on_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"image_hw_px='64' cannot be used: "):
        evalkit.load_bench("robosuite", image_hw_px="64")
    with pytest.raises(BadConfig, match=r"max_steps='many' cannot be used: .*'many'"):
        evalkit.load_bench(BENCH, max_steps="many")
    with pytest.raises(BadConfig, match="gl must be auto, egl or osmesa"):
        evalkit.load_bench("robosuite", gl="glx")
    bench, policy = evalkit.load_bench(BENCH, max_steps=3), evalkit.load_policy(POLICY)
    assert bench.given_settings == {"max_steps": 3}
    assert evalkit.load_bench("robosuite", image_hw_px=(64, 96)).config.image_hw_px == [64, 96]
    plan = evalkit.make_plan(bench, policy, num_episodes=1)
    with pytest.raises(BadConfig, match=r"workers='two' cannot be used"):
        evalkit.run_plan(plan, bench, policy, tmp_path / "run", workers="two")
    with pytest.raises(BadConfig, match=r"run\.workers must be from 1 to"):
        evalkit.run_plan(plan, bench, policy, tmp_path / "run", workers=0)
    with pytest.raises(UnknownName, match=f"Run `evalkit list --bench {BENCH}`"):
        evalkit.run_plan(plan, bench, policy, tmp_path / "run", wokers=2)


def test_a_plan_of_other_settings_is_refused(tmp_path: Path) -> None:
    bench, policy = evalkit.load_bench(BENCH), evalkit.load_policy(POLICY)
    plan = evalkit.make_plan(bench, policy, num_episodes=1)
    with pytest.raises(BadConfig, match="made of 'fake' with other settings"):
        evalkit.run_plan(plan, evalkit.load_bench(BENCH, max_steps=3), policy, tmp_path / "run")
    with pytest.raises(UnknownName, match="Did you mean 'workers'"):
        evalkit.run_plan(plan, bench, policy, tmp_path / "run", wokers=2)
    assert not (tmp_path / "run").exists()


def test_importing_evalkit_loads_no_package() -> None:
    code = "import sys, evalkit; print('numpy' in sys.modules, hasattr(evalkit, 'no_such_name'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
