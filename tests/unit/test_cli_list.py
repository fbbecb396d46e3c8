"""`evalkit list`: what each bench and policy gives and needs, and whether it is here; fast, without a framework.

In: the registered plugins and doubles. Out: lines of text.
Read next: `evalkit/cli/list.py`.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evalkit.cli.list import describe_bench, describe_policy
from evalkit.cli.main import app
from evalkit.contracts import plugins
from evalkit.contracts.env import Finding, find_interpreter
from tests.doubles.bench import FakeBench
from tests.doubles.faulty_policy import FaultyPlugin
from xwam.checkpoints import hub
from xwam.policy import XwamPlugin

LOADS = (
    "import sys, evalkit.cli.main as m; m.app(['list'], standalone_mode=False); "
    "print([name for name in {} if name in sys.modules])"
)


def lines(traits: Any) -> list[str]:
    return [f"{trait.word}: {trait.text}" for trait in traits]


def test_a_policys_spec_is_told() -> None:
    assert lines(describe_policy(FaultyPlugin())) == [
        "predicts: RGB, depth, states (2 frames, 2 steps apart); also the outcome of given actions",
        "needs: any views, 128 x 128 px; osc_delta_base; left arm; frames between requests, one every 2 steps",
        "here: see `evalkit doctor faulty`",
    ]
    scripted = lines(describe_policy(plugins.load_policy("scripted")))
    assert (
        "oracle: reads episode and all simulator state; only 10 tasks of robocasa, 5 tasks of robosuite" in scripted[1]
    )


def test_a_benchs_spec_and_state_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines(describe_bench(FakeBench())) == [
        "gives: 2 tasks; 2 static, 1 wrist, 16 x 24 px; osc_delta_base; 20 Hz"
    ]
    monkeypatch.delenv("EVALKIT_ROBOTWIN_ROOT", raising=False)
    robotwin = lines(describe_bench(plugins.load_bench("robotwin")))
    assert robotwin[:2] == [
        "gives: not known here: RoboTwin is not here",
        "missing: checkout: none is named; set EVALKIT_ROBOTWIN_ROOT (docs/robotwin.md)",
    ]


def test_weights_are_shipped_here_random_or_to_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    plugin = XwamPlugin()

    def found(checkpoint: str) -> Finding:
        (finding,) = plugin.glance(plugin.config_type(checkpoint=checkpoint))
        return finding

    assert found("nano").found == "shipped (nano)"
    assert found("random-nano").found.startswith("random (random-nano)")
    assert found(str(tmp_path)).found == f"on this machine ({tmp_path})"
    absent = found("owner/name")
    assert not absent.ok
    assert absent.found == "to be downloaded from https://huggingface.co/owner/name"
    held = tmp_path / "models--owner--name/snapshots/0a1b"
    held.mkdir(parents=True)
    (held / "config.yaml").write_text("")
    assert found("owner/name/folder").found == "downloaded from the Hugging Face hub (owner/name/folder)"
    assert not found("./nowhere.safetensors").ok
    assert hub.shipped("nano") is not None


def test_an_interpreter_is_there_or_not(tmp_path: Path) -> None:
    assert find_interpreter(sys.executable, "numpy", remedy="").ok
    assert (
        find_interpreter(sys.executable, "no_such_simulator", remedy="").found
        == "evalkit's own, without no_such_simulator"
    )
    assert not find_interpreter(str(tmp_path / "python"), "numpy", remedy="").ok


@dataclass(frozen=True, kw_only=True)
class _Config:
    pass


class BrokenPlugin:
    """A policy whose spec cannot be read."""

    name, summary, config_type = "broken", "a double", _Config

    def spec(self, config: Any) -> Any:
        raise OSError("no weights at weights.pt; download them")

    def provenance(self, config: Any) -> dict[str, str]:
        return {}

    def make(self, config: Any) -> Any:
        raise NotImplementedError

    def glance(self, config: Any) -> list[Finding]:
        return [Finding(what="weights", ok=False, found="none", remedy="download them", needed=False)]


def test_a_plugin_that_cannot_be_asked_is_listed() -> None:
    assert lines(describe_policy(BrokenPlugin())) == [
        "needs: not known here: no weights at weights.pt",
        "absent: weights: none; download them",
    ]
    result = CliRunner().invoke(app, ["list", "--policy", "tests.unit.test_cli_list:BrokenPlugin"])
    assert result.exit_code == 0, result.output
    assert "not known here: no weights at weights.pt" in result.output


def test_the_list_loads_no_framework() -> None:
    heavy = ("torch", "transformers", "diffusers", "robosuite", "mujoco", "pandas", "h5py")
    done = subprocess.run([sys.executable, "-c", LOADS.format(heavy)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for name in (*plugins.names(plugins.BENCHES), *plugins.names(plugins.POLICIES)):
        assert f"\n{name}: " in done.stdout


@pytest.mark.parametrize("policy", ["xwam", "uwm"])
def test_settings_of_all_models_are_explained(policy: str) -> None:
    said = CliRunner().invoke(app, ["list", "--policy", policy]).output.splitlines()
    keys = [index for index, line in enumerate(said) if line.startswith(f"key       policy.{policy}.")]
    assert len(keys) > 10
    assert all(said[index + 1].startswith("          ") for index in keys)
