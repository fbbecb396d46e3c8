"""Benches, policies and experts by name.

In: a name, or `module:attribute`. Out: the plugin.
Read next: the entry points in `pyproject.toml`; `env.py` and `policy.py` for the members of a plugin.

A name is looked up among the entry points of the groups `evalkit.envs`, `evalkit.policies` and `evalkit.experts`, so
that an installed package adds its own. `module:attribute` needs no installing and suits a first try; the module is also
looked up in the working directory.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from evalkit.contracts.env import Bench
from evalkit.contracts.errors import EvalkitError, PluginRaised, UnknownName, describe
from evalkit.contracts.policy import ExpertPlugin, Policy, PolicyPlugin
from evalkit.contracts.recording import RecordableBench

BENCHES = "evalkit.envs"
POLICIES = "evalkit.policies"
EXPERTS = "evalkit.experts"

_ATTRIBUTES = {
    BENCHES: ("name", "summary", "config_type", "tasks", "settings", "protocol"),
    POLICIES: ("name", "summary", "config_type"),
    EXPERTS: ("tasks",),
}
_SEE = {
    BENCHES: "See docs/write_a_bench.md.",
    POLICIES: "See docs/write_a_policy.md.",
    EXPERTS: "See ExpertPlugin in evalkit/contracts/policy.py.",
}
_METHODS = {
    BENCHES: ("plan_episodes", "env_spec", "launch", "departures", "provenance"),
    POLICIES: ("spec", "provenance", "make"),
    EXPERTS: ("start",),
}
_RECORDABLE_ATTRIBUTES = ("episodes_per_process", "must_choose", "replay")
_RECORDABLE_METHODS = ("is_published_seed", "possible_tasks", "dataset_axes")


def names(group: str) -> list[str]:
    """Return the registered names of a group, sorted."""
    return sorted({entry.name for entry in metadata.entry_points(group=group)})


def load_bench(name: str) -> Bench:
    """Return the bench of this name.

    Raises:
        UnknownName: If no package registered it.
        EvalkitError: If it cannot be imported, or lacks a member.
    """
    return _load(BENCHES, "bench", name)


def recordable(bench: Bench) -> RecordableBench:
    """Return a bench whose episodes can be recorded as a data set.

    Raises:
        EvalkitError: If it lacks a member of `RecordableBench`.
    """
    missing = _missing(bench, _RECORDABLE_ATTRIBUTES, _RECORDABLE_METHODS)
    if missing:
        raise EvalkitError(
            f"Bench '{bench.name}' cannot be recorded: its plugin has no {', '.join(missing)}. "
            f"See RecordableBench in evalkit/contracts/recording.py."
        )
    assert isinstance(bench, RecordableBench)
    return bench


def load_policy(name: str) -> PolicyPlugin:
    """Return the policy plugin of this name; raises as `load_bench` does."""
    return _load(POLICIES, "policy", name)


def load_expert(bench: str) -> ExpertPlugin:
    """Return the experts of a bench.

    Raises:
        EvalkitError: If no package registered experts for it, or they cannot be imported.
    """
    known = names(EXPERTS)
    if bench not in known:
        raise EvalkitError(
            f"Bench '{bench}' has no experts: no package registered any in the entry-point group '{EXPERTS}'; "
            f"the benches {', '.join(known) or 'none'} have some."
        )
    return _load(EXPERTS, "expert", bench)


def make_policy(plugin: PolicyPlugin, config: Any) -> Policy:
    """Return a plugin's policy with its weights in memory.

    Raises:
        EvalkitError: If it needs a package that is not installed, or refuses for a reason of its own.
        PluginRaised: If its code raises any other error.
    """
    try:
        return plugin.make(config)
    except ImportError as error:
        raise EvalkitError(
            f"Policy '{plugin.name}' needs a package that is not installed: {error}. "
            f"`make setup` installs what the embedded default needs; pyproject.toml names the extras for the rest."
        ) from error
    except EvalkitError:
        raise
    except Exception as error:  # a plugin is anyone's code and may fail in any way while it loads
        raise PluginRaised(f"Policy '{plugin.name}' cannot be loaded: {describe(error)}.") from error


def resolve(target: str) -> Any:
    """Return the attribute that `module:attribute` names."""
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise ValueError("a target is written module:attribute")
    return getattr(importlib.import_module(module), attribute)


def _load(group: str, kind: str, name: str) -> Any:
    entries = {entry.name: entry.value for entry in metadata.entry_points(group=group)}
    target = name if ":" in name else entries.get(name)
    if target is None:
        raise UnknownName(kind, name, entries, see="evalkit list")
    if ":" in name and "" not in sys.path:
        sys.path.insert(0, "")
    try:
        plugin = resolve(target)()
    except Exception as error:  # a plugin is anyone's code and may fail in any way while it is imported
        where = "" if target == name else f" ({target})"
        raise EvalkitError(f"The {kind} '{name}'{where} cannot be imported: {describe(error)}.") from error
    missing = _missing(plugin, _ATTRIBUTES[group], _METHODS[group])
    if missing:
        raise EvalkitError(f"'{target}' is no {kind} plugin: it has no {', '.join(missing)}. {_SEE[group]}")
    return plugin


def _missing(plugin: Any, attributes: Sequence[str], methods: Sequence[str]) -> list[str]:
    """Return the members that a plugin lacks, and the methods that are not callable."""
    lacking = [name for name in attributes if not hasattr(plugin, name)]
    return lacking + [f"{name}()" for name in methods if not callable(getattr(plugin, name, None))]
