"""The policy `scripted`: runs the expert of each task, which reads the simulator's state, one action at a time.

In: proprio and privileged state. Out: chunks of one action.
Read next: `experts.py` and `robocasa.py`, the experts of two benches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.plugins import EXPERTS, load_expert, names
from evalkit.contracts.policy import Expert
from evalkit.contracts.spec import EVERYTHING, OSC_DELTA_BASE, EnvSpec, PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest


@dataclass(frozen=True, kw_only=True)
class ScriptedConfig:
    """Settings of the experts: none."""


class ScriptedPolicy:
    """Runs one expert per episode; satisfies `evalkit.contracts.policy.Policy`."""

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec
        self._running: dict[str, Expert] = {}

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Start the expert of the env's task.

        Raises:
            EvalkitError: If there is none.
        """
        bench, _, task = env.env_id.partition("/")
        plugin = load_expert(bench)
        if task not in plugin.tasks:
            raise EvalkitError(
                f"There is no scripted expert for task '{task}' of {bench}; "
                f"choose among {', '.join(plugin.tasks)}, or another policy."
            )
        self._running[episode_id] = plugin.start(task)

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one action per request."""
        return [self._reply(request) for request in requests]

    def _reply(self, request: PolicyRequest) -> PolicyReply:
        started = time.perf_counter()
        action = self._running[request.episode_id].act(request.observation)
        return PolicyReply(actions=action[None], timings_ms={"expert": 1000 * (time.perf_counter() - started)})


class ScriptedPlugin:
    """Plugin `scripted`.

    Args:
        bench: The bench whose experts it runs; None for the experts of every bench.
    """

    name = "scripted"
    summary = "Experts that read the simulator's state: the ceiling of a task, and the source of demonstrations"
    config_type = ScriptedConfig

    def __init__(self, bench: str | None = None) -> None:
        self._bench = bench

    def for_bench(self, bench: str) -> ScriptedPlugin:
        """Return the plugin that states the experts of one bench, so that no other package changes a plan."""
        return ScriptedPlugin(bench)

    def spec(self, config: ScriptedConfig) -> PolicySpec:
        """Return that it drives one arm and needs no images."""
        return PolicySpec(
            policy_id=self.name,
            action_layouts=(OSC_DELTA_BASE,),
            chunk_len=1,
            execute_steps=1,
            arms=("left",),
            env_ids=tuple(f"{bench}/{task}" for bench, tasks in self._tasks().items() for task in tasks),
            needs_images=False,
            privileged_keys=(EVERYTHING,),
        )

    def provenance(self, config: ScriptedConfig) -> dict[str, str]:
        """Return which tasks have an expert."""
        return {"experts": "; ".join(f"{bench}: {', '.join(tasks)}" for bench, tasks in self._tasks().items())}

    def make(self, config: ScriptedConfig) -> ScriptedPolicy:
        """Return the policy."""
        return ScriptedPolicy(self.spec(config))

    def _tasks(self) -> dict[str, Sequence[str]]:
        """Return the tasks with an expert, by bench; of all benches, those whose experts can be imported."""
        if self._bench is not None:
            return {self._bench: load_expert(self._bench).tasks}
        tasks = {}
        for bench in names(EXPERTS):
            with suppress(EvalkitError):
                tasks[bench] = load_expert(bench).tasks
        return tasks
