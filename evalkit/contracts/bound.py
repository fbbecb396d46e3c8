"""A bench and a policy, each together with its settings.

In: a plugin and an instance of its `config_type`. Out: the plugin's answers for these settings.
Read next: `env.py` and `policy.py` for what a plugin offers; `evalkit/config.py`, which binds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from evalkit.contracts.env import (
    PLACE,
    Bench,
    CountedBench,
    Finding,
    PacedBench,
    SeededBench,
    SettledBench,
    StatedBench,
    VettableBench,
    WorkerLaunch,
)
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.plugins import make_policy, recordable
from evalkit.contracts.policy import ExaminedPolicy, Policy, PolicyPlugin, RehearsedPolicy
from evalkit.contracts.recording import RecordableBench
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import Episode


@dataclass(frozen=True, kw_only=True)
class _Bound:
    """A plugin with its settings; it is picklable if plugin and config are.

    Attributes:
        plugin: The plugin; two of the same address are equal.
        config: An instance of its `config_type`.
        given: Names of the settings that the user gave; a data set states their values.
        loaded_as: The name or `module:attribute` by which it was loaded; None for its own name.
    """

    plugin: Any = field(compare=False)
    config: Any
    given: tuple[str, ...] = ()
    loaded_as: str | None = None

    @property
    def name(self) -> str:
        """Return the plugin's name."""
        return str(self.plugin.name)

    @property
    def address(self) -> str:
        """Return the name or `module:attribute` that loads the plugin."""
        return self.loaded_as or self.name

    @property
    def given_settings(self) -> dict[str, Any]:
        """Return the settings that the user gave with their values."""
        return {name: getattr(self.config, name) for name in self.given}


@dataclass(frozen=True, kw_only=True)
class BoundBench(_Bound):
    """A bench with its settings; the methods are those of `Bench`."""

    plugin: Bench = field(compare=False)

    @property
    def planned_config(self) -> dict[str, Any]:
        """Return the settings that go into a plan: all but those that say where something lies on this machine."""
        places = {entry.name for entry in fields(self.config) if PLACE.items() <= entry.metadata.items()}
        return {name: value for name, value in asdict(self.config).items() if name not in places}

    @property
    def recordable(self) -> RecordableBench:
        """Return the plugin of a bench whose episodes can be recorded; raises EvalkitError if they cannot."""
        return recordable(self.plugin)

    @property
    def tasks(self) -> Sequence[str]:
        """Return the bench's tasks in report order."""
        return self.plugin.tasks

    @property
    def settings(self) -> Sequence[str]:
        """Return the names of the bench's settings; the first is the default."""
        return self.plugin.settings

    @property
    def executed_steps(self) -> int | None:
        """Return how many actions of a chunk the protocol executes; None where it does not say."""
        return self.plugin.executed_steps(self.config) if isinstance(self.plugin, PacedBench) else None

    @property
    def episodes_per_task(self) -> int | None:
        """Return how many episodes of each task the protocol has; None where it does not say."""
        return self.plugin.episodes_per_task(self.config) if isinstance(self.plugin, CountedBench) else None

    @property
    def success_after_steps(self) -> int:
        """Return the control steps after which a success must still hold to count; 0 if the first success counts."""
        return self.plugin.success_after_steps(self.config) if isinstance(self.plugin, SettledBench) else 0

    @property
    def state_settings(self) -> Mapping[str, str]:
        """Return the setting that adds a simulator state, by the name of the state."""
        return self.plugin.state_settings if isinstance(self.plugin, StatedBench) else {}

    def plan_episodes(self, *, task: str, setting: str, num_episodes: int, seed: int) -> list[Episode]:
        """Return the episodes of one task."""
        return self.plugin.plan_episodes(self.config, task=task, setting=setting, num_episodes=num_episodes, seed=seed)

    def env_spec(self, *, task: str, setting: str) -> EnvSpec:
        """Return what the env of a task will give."""
        return self.plugin.env_spec(self.config, task=task, setting=setting)

    def launch(self, *, task: str, setting: str) -> WorkerLaunch:
        """Return how to start the env process of a task."""
        return self.plugin.launch(self.config, task=task, setting=setting)

    def departures(self) -> list[str]:
        """Return every departure from the protocol, one sentence each."""
        return list(self.plugin.departures(self.config))

    def seed_departures(self, seed: int) -> list[str]:
        """Return how a plan with this seed departs from the protocol, one sentence each."""
        return self.plugin.seed_departures(self.config, seed=seed) if isinstance(self.plugin, SeededBench) else []

    def vetting_departures(self, episodes: Sequence[Episode]) -> list[str]:
        """Return how the vetting of planned episodes departs from the protocol's, one sentence each."""
        plugin = self.plugin
        return plugin.vetting_departures(self.config, episodes) if isinstance(plugin, VettableBench) else []

    def vetting_provenance(self, episodes: Sequence[Episode]) -> dict[str, str]:
        """Return what identifies the vettings of planned episodes; empty where every seed is an episode."""
        plugin = self.plugin
        return plugin.vetting_provenance(self.config, episodes) if isinstance(plugin, VettableBench) else {}

    def provenance(self) -> dict[str, str]:
        """Return versions of the simulator and its assets."""
        return dict(self.plugin.provenance(self.config))


@dataclass(frozen=True, kw_only=True)
class BoundPolicy(_Bound):
    """A policy with its settings; the methods are those of `PolicyPlugin`."""

    plugin: PolicyPlugin = field(compare=False)

    def for_bench(self, bench: str) -> BoundPolicy:
        """Return the policy as a plan for this bench states it; see `PolicyPlugin`."""
        for_bench = getattr(self.plugin, "for_bench", None)
        return self if for_bench is None else replace(self, plugin=for_bench(bench))

    def for_dry_run(self, bench: str) -> tuple[BoundPolicy, str]:
        """Return the policy as a dry run on this bench plans it, and a sentence about what it replaces; maybe empty."""
        plugin = self.for_bench(bench).plugin
        changed = plugin.for_dry_run(self.config, self.given) if isinstance(plugin, RehearsedPolicy) else None
        return (self, "") if changed is None else (replace(self, config=changed[0]), changed[1])

    def spec(self) -> PolicySpec:
        """Return what the policy needs and gives, without loading it."""
        return self.plugin.spec(self.config)

    def provenance(self) -> dict[str, str]:
        """Return what identifies the policy: hashes of weights, parameter counts, notes."""
        return dict(self.plugin.provenance(self.config))

    def examine(self) -> list[Finding]:
        """Return what the policy needs on this machine, and whether it is there; maybe nothing."""
        return self.plugin.examine(self.config) if isinstance(self.plugin, ExaminedPolicy) else []

    def require(self) -> None:
        """Raise BadConfig unless everything that the policy needs is there; nothing is loaded."""
        lacking = [finding for finding in self.examine() if finding.needed and not finding.ok]
        if lacking:
            each = (f"{each.what}{f' ({each.found})' if each.found else ''}; {each.remedy}" for each in lacking)
            raise BadConfig(f"Policy '{self.name}' lacks {'; and '.join(each)}.")

    def load(self) -> Policy:
        """Return the policy with its weights in memory; raises as `plugins.make_policy` and `require` do."""
        self.require()
        return make_policy(self.plugin, self.config)
