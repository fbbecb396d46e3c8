"""The policy `scripted`: an oracle that solves tasks by reading the simulator's state, one action at a time.

In: proprio and privileged state. Out: chunks of one action.
Read next: `experts.py` and `robocasa.py`, what it does in each task.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from baselines.scripted import experts, robocasa
from baselines.scripted.motion import Expert, Senses, action_towards
from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.spec import EVERYTHING, OSC_DELTA_BASE, EnvSpec, PolicySpec
from evalkit.contracts.types import Episode, Observation, PolicyReply, PolicyRequest

EXPERTS: Mapping[str, Mapping[str, Callable[[Senses], Expert]]] = {
    "robosuite": experts.EXPERTS,
    "robocasa": robocasa.EXPERTS,
}
"""The experts of each bench, by task."""


@dataclass(frozen=True, kw_only=True)
class ScriptedConfig:
    """Settings of the experts: none."""


class ScriptedPolicy:
    """Runs one expert an episode; satisfies `evalkit.contracts.policy.Policy`."""

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec
        self._running: dict[str, tuple[Senses, Expert] | None] = {}

    def reset(self, episode: Episode, env: EnvSpec) -> None:
        """Forget this episode.

        Raises:
            EvalkitError: If nobody wrote an expert for its task.
        """
        known = EXPERTS.get(episode.bench, {})
        if episode.task not in known:
            raise EvalkitError(
                f"There is no scripted expert for task '{episode.task}' of {env.env_id}; "
                f"choose among {', '.join(known) or 'the benches ' + ', '.join(EXPERTS)}, or another policy."
            )
        self._running[episode.key] = None

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one action a request."""
        return [self._reply(request) for request in requests]

    def _reply(self, request: PolicyRequest) -> PolicyReply:
        started = time.perf_counter()
        senses, expert = self._resume(request.episode, request.observation)
        actions = action_towards(next(expert), senses)[None]
        return PolicyReply(actions=actions, timings_ms={"expert": 1000 * (time.perf_counter() - started)})

    def _resume(self, episode: Episode, observation: Observation) -> tuple[Senses, Expert]:
        """Return the episode's expert, its senses refreshed; it starts at the first request."""
        running = self._running[episode.key]
        if running is None:
            senses = Senses(observation)
            running = senses, EXPERTS[episode.bench][episode.task](senses)
            self._running[episode.key] = running
        running[0].refresh(observation)
        return running


class ScriptedPlugin:
    """Plugin `scripted`."""

    name = "scripted"
    summary = "An oracle that reads the simulator's state: what the tasks allow, and where demonstrations come from"
    config_type = ScriptedConfig

    def spec(self, config: ScriptedConfig) -> PolicySpec:
        """Return that it drives one arm and looks at no picture."""
        return PolicySpec(
            policy_id=self.name,
            action_layouts=(OSC_DELTA_BASE,),
            chunk_len=1,
            execute_steps=1,
            arms=("left",),
            env_ids=tuple(f"{bench}/{task}" for bench, tasks in EXPERTS.items() for task in tasks),
            needs_images=False,
            privileged_keys=(EVERYTHING,),
        )

    def provenance(self, config: ScriptedConfig) -> dict[str, str]:
        """Return which tasks have an expert."""
        return {"experts": "; ".join(f"{bench}: {', '.join(tasks)}" for bench, tasks in EXPERTS.items())}

    def make(self, config: ScriptedConfig) -> ScriptedPolicy:
        """Return the policy."""
        return ScriptedPolicy(self.spec(config))
