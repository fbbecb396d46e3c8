"""The contract of benches as checks; they start simulators in worker processes.

In: a bench plugin, perhaps with a config, a task and a setting. Out: nothing, or an AssertionError that says what the
plugin must do.
Read next: `envs.py`, the single checks; `suite.py`, which judges them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.env import Bench, ExaminedBench, Finding, VettableBench
from evalkit.testing.envs import (
    check_cameras,
    check_facts,
    check_first_frames,
    check_plans,
    check_rendering,
    check_settling,
    check_specs,
    check_states,
    check_vetting,
)
from evalkit.testing.suite import Check, NotApplicable, require_all


def check_bench(bench: Bench, config: Any = None) -> None:
    """Check everything that a bench promises; starts its simulator in worker processes.

    Args:
        bench: The plugin.
        config: Settings for the episodes that are run; the plugin's defaults if None. Plans are always checked with
            the defaults.

    Raises:
        AssertionError: If a promise is not kept.
        EpisodeFault: If an env cannot start or answers with nonsense.
    """
    bound = BoundBench(plugin=bench, config=bench.config_type() if config is None else config)
    require_all(bench_checks(bound)[1:])  # all but what `evalkit doctor` says of this machine


def bench_checks(bound: BoundBench, *, task: str | None = None, setting: str | None = None) -> list[Check]:
    """Return the checks of a bench in the order in which they are run.

    Args:
        bound: The bench with its settings.
        task: The task whose env is run; the first if None.
        setting: The setting in which it is run; the first if None.
    """
    bench, config = bound.plugin, bound.config

    def in_env(run: Callable[..., None], found: str) -> Callable[[], str]:
        def checked() -> str:
            run(bench, config, task=task, setting=setting)
            return found

        return checked

    return [
        Check(
            name="requirements",
            run=lambda: _requirements(bound),
            advice=f"`evalkit doctor {bound.address}` says how to get what is missing.",
            needed=True,
        ),
        Check(
            name="plans",
            run=lambda: _planned(bench),
            advice="`plan_episodes` must draw everything from its arguments; see `Bench` in evalkit/contracts/env.py.",
            needed=True,
        ),
        Check(
            name="specs",
            run=lambda: _specified(bench),
            advice="`EnvSpec` (evalkit/contracts/spec.py) and `WorkerLaunch` (evalkit/contracts/env.py) say how.",
            needed=True,
        ),
        Check(
            name="facts",
            run=lambda: _facts(bench, config),
            advice="The optional members are the protocols at the end of evalkit/contracts/env.py.",
        ),
        Check(
            name="first frames",
            run=in_env(check_first_frames, "a seed gives the same scene in another process, two seeds different ones"),
            advice="Draw everything random in `begin` from its seed; see `SceneEnv` in evalkit/contracts/env.py.",
            needed=True,
        ),
        Check(
            name="states",
            run=in_env(check_states, "quaternions are unit with w >= 0, grippers 0 to 1, absent arms zero"),
            advice="`PROPRIO_DIM` in evalkit/contracts/types.py states the layout; geometry.py reorders quaternions.",
        ),
        Check(
            name="cameras",
            run=in_env(check_cameras, "poses are rigid and agree with the states, intrinsics and depth are plausible"),
            advice="`T_base_cam` is the camera in the robot base: x right, y down, z forward; depth is in metres.",
        ),
        Check(
            name="rendering",
            run=in_env(check_rendering, "the robot ends in the same state with and without images between"),
            advice="`observe` must change nothing, also not a random generator that `advance` reads.",
        ),
        Check(
            name="settling",
            run=in_env(check_settling, "the robot stands still after a chunk"),
            advice="`HoldingEnv` in evalkit/contracts/env.py is for robots that need an action of their own.",
        ),
        Check(
            name="vetting",
            run=lambda: _vetted(bound, task, setting),
            advice="`vet` must draw from the seed alone; see `VettingEnv` in evalkit/contracts/env.py.",
        ),
    ]


def _requirements(bound: BoundBench) -> str:
    findings: list[Finding] = bound.plugin.examine(bound.config) if isinstance(bound.plugin, ExaminedBench) else []
    lacking = [
        f"{each.what} {each.found}".strip() + f": {each.remedy}" for each in findings if each.needed and not each.ok
    ]
    assert not lacking, f"missing: {'; '.join(lacking)}"
    return ", ".join(each.what for each in findings if each.ok) or "states none"


def _planned(bench: Bench) -> str:
    check_plans(bench)
    return f"{len(bench.tasks)} tasks in {len(bench.settings)} settings; longer plans begin with shorter ones"


def _specified(bench: Bench) -> str:
    check_specs(bench)
    spec = bench.env_spec(bench.config_type(), task=bench.tasks[0], setting=bench.settings[0])
    views = ", ".join(f"{camera.name} ({camera.kind})" for camera in spec.cameras)
    height, width = spec.image_hw_px
    return f"{views}; {height} x {width} px; {spec.action_layout}, {spec.control_hz:g} Hz"


def _facts(bench: Bench, config: Any) -> str:
    check_facts(bench, config)
    return "what optional members state can be"


def _vetted(bound: BoundBench, task: str | None, setting: str | None) -> str:
    if not isinstance(bound.plugin, VettableBench):
        raise NotApplicable("every seed is an episode")
    check_vetting(bound.plugin, bound.config, task=task, setting=setting)
    return "the expert gives the same verdict in another process"
