"""The plan of a run: every choice, fixed before the first step.

In: a bench, a policy, their configs, tasks, setting, number of episodes, seed. Out: an explicit list of episodes with
a hash; the same arguments give the same bytes.
Read next: `run_folder.py`, which stores it; `evalkit/run/runner.py`, which runs it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from evalkit.contracts.bound import BoundBench, BoundPolicy
from evalkit.contracts.errors import BadConfig, RunFolderError, SpecMismatch, UnknownName
from evalkit.contracts.execution import PLAIN, Execution, check_execution, execution_departures
from evalkit.contracts.manifest import BadManifest
from evalkit.contracts.spec import EnvSpec, PolicySpec, check
from evalkit.contracts.text import count_of
from evalkit.contracts.types import Episode

FORMAT = "evalkit-plan-1"


@dataclass(frozen=True, kw_only=True)
class PartPlan:
    """The bench or the policy as a plan fixes it.

    Attributes:
        name: Name of the plugin.
        config: Every setting, JSON values.
        provenance: Versions, hashes and notes that identify it.
        specs: For a bench, the env spec of each task; for a policy, its spec under its name. JSON values.
    """

    name: str
    config: Mapping[str, Any]
    provenance: Mapping[str, str]
    specs: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides the results of a run.

    Attributes:
        bench: Name, settings, versions and env specs.
        policy: Name, settings, hashes of weights and spec.
        setting: Setting of the bench.
        protocol: Named and versioned set of choices that the plan follows.
        departures: Every departure from that protocol, one sentence each.
        seed: Seed from which the episodes' seeds are derived.
        episodes: Every episode, in the order of tasks and indices.
        success_after_steps: Control steps without action after which a goal must still be met to count as a success;
            0 if the first success counts.
        execution: What the robot does while the policy computes.
    """

    bench: PartPlan
    policy: PartPlan
    setting: str
    protocol: str
    departures: tuple[str, ...]
    seed: int
    episodes: tuple[Episode, ...]
    success_after_steps: int = 0
    execution: Execution = PLAIN

    @property
    def tasks(self) -> tuple[str, ...]:
        """Return the planned tasks in order."""
        return tuple(dict.fromkeys(episode.task for episode in self.episodes))

    @property
    def may_predict(self) -> bool:
        """Return whether the execution lets predictions be scored: on some task they are of the executed actions."""
        return any(self.execution.may_predict(self.env_spec(task).control_hz) for task in self.tasks)

    @property
    def sha256(self) -> str:
        """Return the hash of the plan's content."""
        return hashlib.sha256(self._content()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the bytes of `plan.json`: the content and its hash."""
        content = json.loads(self._content())
        return (json.dumps({"sha256": self.sha256, **content}, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> Plan:
        """Return the plan that `to_bytes` wrote.

        Raises:
            RunFolderError: If the bytes are not a plan, or its hash does not match its content.
        """
        try:
            content = json.loads(data)
            if not isinstance(content, dict) or "sha256" not in content:
                raise ValueError("it states no sha256")
            stated = content.pop("sha256")
            if content.pop("format") != FORMAT:
                raise ValueError(f"its format is not '{FORMAT}'")
            plan = cls(
                **{
                    **content,
                    "bench": PartPlan(**content["bench"]),
                    "policy": PartPlan(**content["policy"]),
                    "departures": tuple(content["departures"]),
                    "episodes": tuple(Episode(**episode) for episode in content["episodes"]),
                    "execution": Execution(**content.get("execution", {})),
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunFolderError(f"{where} is not a plan: {error}.") from error
        if plan.sha256 != stated:
            raise RunFolderError(
                f"{where} was edited: its content does not match its sha256. Restore it, or start a new run."
            )
        return plan

    def env_spec(self, task: str) -> EnvSpec:
        """Return the planned env spec of a task."""
        return EnvSpec.from_json(dict(self.bench.specs[task]))

    def _content(self) -> bytes:
        content = {"format": FORMAT, **asdict(self), "episodes": [episode.to_json() for episode in self.episodes]}
        if self.success_after_steps == 0:
            del content["success_after_steps"]  # as in plans that know none
        if self.execution.is_plain:
            del content["execution"]
        return json.dumps(content, sort_keys=True, allow_nan=False).encode()


def make_plan(
    bench: BoundBench,
    policy: BoundPolicy,
    *,
    tasks: Sequence[str] = (),
    setting: str | None = None,
    num_episodes: int,
    seed: int = 0,
    max_steps: int | None = None,
    execution: Execution = PLAIN,
) -> Plan:
    """Return the plan of a run, after checking that policy and envs fit.

    Args:
        bench: The bench with its settings.
        policy: The policy with its settings.
        tasks: Names of tasks; empty for all tasks of the bench on which the policy can run.
        setting: Name of a setting; None for the bench's first.
        num_episodes: Episodes per task, at least 1.
        seed: Seed from which the episodes' seeds are derived.
        max_steps: Shortens every longer episode to this many steps; a departure from the protocol.
        execution: What the robot does while the policy computes; all but the default is a departure.

    Raises:
        UnknownName: For a task or setting that the bench does not have.
        BadConfig: For numbers that make no plan, a policy that lacks something that it needs, or an execution that does
            not fit policy and env.
        SpecMismatch: If the policy cannot run on a task that is named, or on any.
        EvalkitError: If the policy needs experts of the bench, and there are none.
    """
    named = list(dict.fromkeys(tasks))
    setting = bench.settings[0] if setting is None else setting
    _check_names(bench, named, setting)
    _check_numbers(num_episodes, seed, max_steps)
    specs = {task: bench.env_spec(task=task, setting=setting) for task in named or bench.tasks}
    policy = policy.for_bench(bench.name)
    policy.require()
    policy_spec = policy.spec()
    specs = _fitting(specs, policy_spec, bench.state_settings, all_must_fit=bool(named))
    for spec in specs.values():
        check_execution(execution, spec, policy_spec)
    episodes = [
        episode
        for task in specs
        for episode in bench.plan_episodes(task=task, setting=setting, num_episodes=num_episodes, seed=seed)
    ]
    if max_steps is not None and max_steps >= max(episode.max_steps for episode in episodes):
        max_steps = None  # no episode is longer, so the protocol's limits stay
    if max_steps is not None:
        episodes = [replace(episode, max_steps=min(episode.max_steps, max_steps)) for episode in episodes]
    return Plan(
        bench=PartPlan(
            name=bench.name,
            config=bench.planned_config,
            provenance={**bench.provenance(), **bench.vetting_provenance(episodes)},
            specs={task: spec.to_json() for task, spec in specs.items()},
        ),
        policy=PartPlan(
            name=policy.name,
            config=asdict(policy.config),
            provenance=policy.provenance(),
            specs={policy.name: policy_spec.to_json()},
        ),
        setting=setting,
        protocol=episodes[0].protocol,
        departures=(
            *_departures(bench, policy_spec, max_steps),
            *execution_departures(execution, next(iter(specs.values())), policy_spec),
            *bench.vetting_departures(episodes),
            *bench.seed_departures(seed),
            *_other_count(bench, episodes, setting=setting, num_episodes=num_episodes, seed=seed),
        ),
        seed=seed,
        episodes=tuple(episodes),
        success_after_steps=bench.success_after_steps,
        execution=execution,
    )


def nothing_predicted(plan: Plan) -> str | None:
    """Return why a policy that predicts is never asked for a prediction; None if it is, or if it predicts nothing.

    A frame is asked for only if the executed steps reach it, so that it can be compared with the ground truth.
    """
    if any(spec.get("predicts") for spec in plan.policy.specs.values()) and not plan.may_predict:
        return (
            f"With execution.realtime={plan.execution.realtime} and execution.delay_ms={plan.execution.delay_ms} the "
            "robot executes other actions than those whose outcome the policy predicts: nothing is predicted."
        )
    longest = max(episode.max_steps for episode in plan.episodes)
    for spec in plan.policy.specs.values():
        stride = spec.get("frame_stride", 0)
        steps = min(spec.get("execute_steps", longest), longest)
        if spec.get("predicts") and steps < stride:
            reach = "reaches" if steps == 1 else "reach"
            return (
                f"{count_of(steps, 'executed step')} {reach} no predicted frame (one every {stride} steps): nothing is "
                "predicted."
            )
    return None


def _check_numbers(num_episodes: int, seed: int, max_steps: int | None) -> None:
    """Raise BadConfig for numbers that make no plan."""
    if num_episodes < 1:
        raise BadConfig(f"A plan needs at least 1 episode per task, got {num_episodes} (--episodes).")
    if seed < 0:
        raise BadConfig(f"The seed must be 0 or more, got {seed} (--seed).")
    if max_steps is not None and max_steps < 1:
        raise BadConfig(f"An episode needs at least 1 step, got bench.max_steps={max_steps}.")


def _check_names(bench: BoundBench, tasks: Sequence[str], setting: str) -> None:
    """Raise UnknownName for a task or setting that the bench does not have."""
    see = f"evalkit list --bench {bench.name}"
    for task in tasks:
        if task not in bench.tasks:
            raise UnknownName("task", task, bench.tasks, see=see)
    if setting not in bench.settings:
        raise UnknownName("setting", setting, bench.settings, see=see)


def _departures(bench: BoundBench, policy: PolicySpec, max_steps: int | None) -> tuple[str, ...]:
    """Return every departure from the protocol: the bench's own, shorter episodes, another number of executed steps."""
    departures = bench.departures()
    if max_steps is not None:
        departures.append(f"Episodes are cut at {count_of(max_steps, 'step')} (bench.max_steps).")
    paced = bench.executed_steps
    if paced is not None and policy.execute_steps != paced:
        departures.append(f"The policy executes {policy.execute_steps} actions of a chunk instead of {paced}.")
    return tuple(departures)


def _other_count(
    bench: BoundBench, episodes: Sequence[Episode], *, setting: str, num_episodes: int, seed: int
) -> list[str]:
    """Return the departure of a plan that has another number of episodes per task than the protocol; or nothing."""
    count = bench.episodes_per_task
    if count is None or count == num_episodes:
        return []
    moved = _have_moved(bench, episodes, setting=setting, num_episodes=count, seed=seed)
    consequence = ", and seeds depend on the number: they are other episodes than the protocol's" if moved else ""
    return [f"{count_of(num_episodes, 'episode')} per task instead of {count}{consequence}."]


def _have_moved(bench: BoundBench, episodes: Sequence[Episode], *, setting: str, num_episodes: int, seed: int) -> bool:
    """Return whether episodes have other env seeds than in a plan of `num_episodes`, or that plan is not allowed.

    A manifest that is too short for that plan moves nothing: its seeds do not depend on their number.
    """
    tasks = dict.fromkeys(episode.task for episode in episodes)
    try:
        theirs = {
            (task, episode.index): episode.seed
            for task in tasks
            for episode in bench.plan_episodes(task=task, setting=setting, num_episodes=num_episodes, seed=seed)
        }
    except BadConfig:
        return True
    except BadManifest:
        return False
    return any(theirs.get((ours.task, ours.index), ours.seed) != ours.seed for ours in episodes)


def _fitting(
    specs: Mapping[str, EnvSpec], policy: PolicySpec, state_settings: Mapping[str, str], *, all_must_fit: bool
) -> dict[str, EnvSpec]:
    """Return the env specs of the tasks on which the policy can run.

    Raises:
        SpecMismatch: If there is none, or if all must fit and one does not; it names the tasks that fit.
    """
    mismatches: dict[str, SpecMismatch] = {}
    for task, spec in specs.items():
        try:
            check(spec, policy, state_settings)
        except SpecMismatch as mismatch:
            mismatches[task] = mismatch
    fitting = {task: spec for task, spec in specs.items() if task not in mismatches}
    if mismatches and (all_must_fit or not fitting):
        first = next(iter(mismatches.values()))
        raise SpecMismatch(f"{first} These tasks fit: --tasks {','.join(fitting)}." if fitting else str(first))
    return fitting
