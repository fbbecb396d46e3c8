"""What every registered bench must do, whichever simulator is behind it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.contracts import plugins
from evalkit.contracts.env import Bench, ExaminedBench
from evalkit.contracts.errors import EpisodeFault
from evalkit.contracts.spec import OSC_DELTA_BASE, EnvSpec
from evalkit.contracts.types import ACTION_DIM, ARM_ACTION, ARM_PROPRIO, Observation
from evalkit.contracts.worker.client import EnvWorker
from evalkit.run.settings import RunSettings

BENCHES = [*plugins.names(plugins.BENCHES), "tests.doubles.bench:FakeBench"]


STAND_INS = {"robocasa": {"art": "placeholder"}}
"""Settings that do without what few machines have."""


@pytest.fixture(params=BENCHES)
def bench(request: pytest.FixtureRequest) -> Bench:
    return plugins.load_bench(request.param)


def light_config(bench: Bench) -> Any:
    """Return settings with which the bench's simulator runs here; skip where it is not there."""
    if isinstance(bench, ExaminedBench):
        lacking = [f for f in bench.examine(bench.config_type()) if f.needed and not f.ok]
        if lacking:
            pytest.skip(f"{bench.name} is not here: {lacking[0].what}: {lacking[0].remedy}")
    return bench.config_type(**STAND_INS.get(bench.name, {}))


def test_plans_are_explicit_and_stable(bench: Bench) -> None:
    config = bench.config_type()
    for task in bench.tasks:
        for setting in bench.settings:
            few = bench.plan_episodes(config, task=task, setting=setting, num_episodes=3, seed=1)
            many = bench.plan_episodes(config, task=task, setting=setting, num_episodes=7, seed=1)
            assert many[:3] == few, "a longer plan must start with the shorter one"
            assert [e.index for e in few] == [0, 1, 2]
            assert len({e.seed for e in many}) == 7
            assert {(e.bench, e.task, e.setting, e.protocol) for e in few} == {
                (bench.name, task, setting, bench.protocol)
            }
            assert all(e.max_steps > 0 for e in few)


def test_specs_and_launches_are_json(bench: Bench) -> None:
    config = bench.config_type()
    for task in bench.tasks:
        spec = bench.env_spec(config, task=task, setting=bench.settings[0])
        assert EnvSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
        assert spec.env_id == f"{bench.name}/{task}"
        assert {camera.arm for camera in spec.cameras if camera.kind == "wrist"} <= set(spec.arms)
        assert all((camera.kind == "wrist") == (camera.T_ee_cam is not None) for camera in spec.cameras)
        launch = bench.launch(config, task=task, setting=bench.settings[0])
        json.dumps(dict(launch.kwargs))
    json.dumps(dict(bench.provenance(config)))
    assert bench.departures(config) == [], "the defaults follow the protocol"


@pytest.mark.sim
def test_first_frame_is_the_same_in_another_process(bench: Bench, tmp_path: Path) -> None:
    config, task, setting = light_config(bench), bench.tasks[0], bench.settings[-1]
    first, second = bench.plan_episodes(config, task=task, setting=setting, num_episodes=2, seed=3)
    spec = bench.env_spec(config, task=task, setting=setting)
    launch = bench.launch(config, task=task, setting=setting)
    seen: list[list[Observation]] = []
    for order in ((first, second), (second, first)):
        worker = EnvWorker(launch, spec, timeouts=RunSettings().timeouts, log_path=tmp_path / "log").build()
        try:
            began = {episode.seed: worker.begin(episode, render=True) for episode in order}
            worker.send_actions(_actions(spec), render_at=[4], render_last=False, render_success=False)
            worker.receive_outcome()
            seen.append([began[first.seed], began[second.seed]])
        except EpisodeFault as fault:
            pytest.fail(fault.reason)
        finally:
            worker.close()
            worker.close()
    for a, b in zip(*seen, strict=True):
        for name in ("rgb", "depth", "proprio", "T_base_cam", "intrinsics"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert (seen[0][0].rgb != seen[0][1].rgb).any(), "two seeds must not look the same"


@pytest.mark.sim
def test_states_are_unit_and_absent_arms_zero(bench: Bench, tmp_path: Path) -> None:
    config, task, setting = light_config(bench), bench.tasks[0], bench.settings[0]
    (episode,) = bench.plan_episodes(config, task=task, setting=setting, num_episodes=1, seed=0)
    spec = bench.env_spec(config, task=task, setting=setting)
    launch = bench.launch(config, task=task, setting=setting)
    worker = EnvWorker(launch, spec, timeouts=RunSettings().timeouts, log_path=tmp_path / "log").build()
    try:
        proprio = worker.begin(episode, render=False).proprio
    finally:
        worker.close()
    for arm, columns in ARM_PROPRIO.items():
        state = proprio[columns]
        if arm in spec.arms:
            assert abs(np.linalg.norm(state[3:7]) - 1) < 1e-5
            assert state[3] >= 0
            assert 0 <= state[7] <= 1
        else:
            assert not state.any()


def _actions(spec: EnvSpec) -> np.ndarray:
    assert spec.action_layout == OSC_DELTA_BASE, "teach this test the new layout"
    actions = np.zeros((8, ACTION_DIM), np.float32)
    for arm in spec.arms:
        actions[:, ARM_ACTION[arm]] = np.random.default_rng(0).uniform(-0.5, 0.5, (8, 7))
    return actions
