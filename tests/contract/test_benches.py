"""What every registered bench must do, whichever simulator is behind it.

Read next: `evalkit/testing/`, which holds the checks.
"""

import ast
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from envs.robotwin.bench import PYTHON_VARIABLE, ROOT_VARIABLE
from envs.robotwin.vetted_lists import read_vetted_list
from evalkit import testing
from evalkit.contracts import plugins
from evalkit.contracts.env import Bench, ExaminedBench, WorkerLaunch
from evalkit.contracts.errors import EpisodeFault
from evalkit.contracts.manifest import write_manifest
from evalkit.contracts.recording import DEMONSTRATION_SEEDS
from tests.doubles.robotwin_checkout import write_checkout, write_double_manifest
from tests.doubles.vetting import VettableFakeBench, VettableFakeEnv

DOUBLES = ["tests.doubles.bench:FakeBench", "tests.doubles.bench:SettledFakeBench"]
VETTABLE = "tests.doubles.vetting:VettableFakeBench"

BENCHES = [*plugins.names(plugins.BENCHES), *DOUBLES]


STAND_INS = {
    "robocasa": {"art": "placeholder"},
    "robotwin": {"planner": "cpu", "renderer": "raster", "shadows": "off"},
}
"""Settings that do without what few machines have."""

SMALL = {"robotwin": {"task": "stack_blocks_two", "setting": "clean"}}
"""What to try where the first task needs assets that few machines have."""

LISTS = Path(os.environ.get("EVALKIT_SHARED", "/nowhere")) / "assets/robotwin_expert_seeds"
"""Vetted episodes of RoboTwin, whose sentences are those of its scenes."""


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    if request.param == "robotwin":  # it plans from a manifest, and reads the arms' files of a checkout
        path = write_double_manifest(tmp_path)
        if LISTS.is_dir():
            write_manifest(path, read_vetted_list(LISTS))
        monkeypatch.chdir(tmp_path)
        if not os.environ.get(ROOT_VARIABLE):
            monkeypatch.setenv(ROOT_VARIABLE, str(write_checkout(tmp_path / "RoboTwin")))
    return plugins.load_bench(request.param)


def light_config(bench: Bench) -> Any:
    """Return settings with which the bench's simulator runs here; skip where it is not installed."""
    config = bench.config_type(**STAND_INS.get(bench.name, {}))
    if isinstance(bench, ExaminedBench):
        lacking = [f for f in bench.examine(config) if f.needed and not f.ok]
        if bench.name in SMALL:
            lacking = [finding for finding in lacking if not finding.what.startswith("assets")]
        if lacking:
            pytest.skip(f"{bench.name} is not here: {lacking[0].what}: {lacking[0].remedy}")
    if bench.name == "robotwin" and not LISTS.is_dir():
        pytest.skip(f"{LISTS} has no vetted episodes, whose sentences the env checks")
    return config


def test_plans_are_explicit_and_stable(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, "/nowhere/python")  # another SAPIEN would be marked in the protocol's name
    testing.check_plans(bench)


def test_specs_and_launches_are_json(bench: Bench) -> None:
    testing.check_specs(bench)


def test_optional_members_state_what_can_be(bench: Bench) -> None:
    testing.check_facts(bench)
    testing.check_facts(plugins.load_bench(VETTABLE))


@pytest.mark.parametrize("name", plugins.names(plugins.EXPERTS))
def test_benches_with_experts_state_facts_for_recording(name: str) -> None:
    bench = plugins.recordable(plugins.load_bench(name))
    config = bench.config_type()
    assert bench.episodes_per_process > 0
    assert set(bench.must_choose) <= {setting.name for setting in fields(bench.config_type)}
    assert not all(map(bench.is_published_seed, DEMONSTRATION_SEEDS))
    for task in bench.tasks:
        possible = bench.possible_tasks(config, task=task)
        assert possible is None or task in possible
        assert possible is None or set(possible) <= set(bench.tasks)
    assert bench.dataset_axes().R_eefsim_eefmodel.shape == (3, 3)
    assert bench.replay is not None
    module, _, attribute = bench.replay.target.partition(":")
    assert attribute in {node.name for node in ast.parse(source_of(module)).body if isinstance(node, ast.ClassDef)}


def source_of(module: str) -> str:
    """Return a module's source without importing it: it may need a simulator."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text()


@pytest.mark.sim
def test_first_frame_is_the_same_in_another_process(bench: Bench) -> None:
    try:
        testing.check_first_frames(bench, light_config(bench), **SMALL.get(bench.name, {}))
    except EpisodeFault as fault:
        pytest.fail(fault.reason)


@pytest.mark.sim
def test_states_are_unit_and_absent_arms_zero(bench: Bench) -> None:
    testing.check_states(bench, light_config(bench), **SMALL.get(bench.name, {}))


@pytest.mark.sim
def test_cameras_follow_the_conventions(bench: Bench) -> None:
    testing.check_cameras(bench, light_config(bench), **SMALL.get(bench.name, {}))


@pytest.mark.sim
def test_rendering_changes_no_motion(bench: Bench) -> None:
    testing.check_rendering(bench, light_config(bench), **SMALL.get(bench.name, {}))


@pytest.mark.sim
def test_the_robot_stands_still_while_a_scene_settles(bench: Bench) -> None:
    testing.check_settling(bench, light_config(bench), **SMALL.get(bench.name, {}))


@pytest.mark.sim
def test_an_expert_gives_the_same_verdict_again(bench: Bench) -> None:
    testing.check_vetting(bench, light_config(bench), **SMALL.get(bench.name, {}))


@pytest.mark.parametrize("name", [*DOUBLES, VETTABLE])
def test_optional_members_of_envs_keep_their_promises(name: str) -> None:
    """The same on the doubles, which need no simulator: settling, counters, the expert's verdicts."""
    bench = plugins.load_bench(name)
    testing.check_settling(bench)
    testing.check_vetting(bench)


class _ByProcess(VettableFakeEnv):
    """Gives another verdict in each process."""

    def vet(self, seed: int, instructions: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        return {**super().vet(seed, instructions), "expert_steps": os.getpid()}


class _Drifting(VettableFakeBench):
    def launch(self, config: Any, *, task: str, setting: str) -> WorkerLaunch:
        launch = super().launch(config, task=task, setting=setting)
        return replace(launch, target="tests.contract.test_benches:_ByProcess")

    def success_after_steps(self, config: Any) -> int:
        return -1


def test_broken_promises_are_found() -> None:
    with pytest.raises(AssertionError, match="the verdict differs in another process"):
        testing.check_vetting(_Drifting())
    with pytest.raises(AssertionError, match="success_after_steps must be 0 or more, got -1"):
        testing.check_facts(_Drifting())
