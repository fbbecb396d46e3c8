"""Benches and policies by name.

In: a name, or `module:attribute`. Out: the plugin.
Read next: the entry points in `pyproject.toml`; `env.py` and `policy.py` for what a plugin offers.

A name is looked up among the entry points of the groups `evalkit.envs` and `evalkit.policies`, so that a package
installed beside evalkit adds its own; `module:attribute` needs no installing and suits a first try: it is found from
the working directory too.
"""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from typing import Any

from evalkit.contracts.env import Bench
from evalkit.contracts.errors import EvalkitError, UnknownName
from evalkit.contracts.policy import Policy, PolicyPlugin

BENCHES = "evalkit.envs"
POLICIES = "evalkit.policies"
_MEMBERS = {
    BENCHES: ("name", "summary", "config_type", "tasks", "settings", "protocol", "plan_episodes", "env_spec", "launch"),
    POLICIES: ("name", "summary", "config_type", "spec", "provenance", "make"),
}


def names(group: str) -> list[str]:
    """Return the registered names of a group, sorted."""
    return sorted({entry.name for entry in metadata.entry_points(group=group)})


def load_bench(name: str) -> Bench:
    """Return the bench of this name.

    Raises:
        UnknownName: If nobody registered it.
        EvalkitError: If it cannot be imported.
    """
    return _load(BENCHES, "bench", name)


def load_policy(name: str) -> PolicyPlugin:
    """Return the policy plugin of this name; raises as `load_bench` does."""
    return _load(POLICIES, "policy", name)


def make_policy(plugin: PolicyPlugin, config: Any) -> Policy:
    """Return a plugin's policy with its weights in memory.

    Raises:
        EvalkitError: If it needs a package that is not installed.
    """
    try:
        return plugin.make(config)
    except ImportError as error:
        raise EvalkitError(
            f"Policy '{plugin.name}' needs a package that is not installed: {error}. "
            f"`make setup` installs what the embedded default needs; pyproject.toml names the extras for the rest."
        ) from error


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
        what = f"{type(error).__name__}: {error}".rstrip(".")
        raise EvalkitError(f"The {kind} '{name}' ({target}) cannot be imported: {what}.") from error
    missing = [member for member in _MEMBERS[group] if not hasattr(plugin, member)]
    if missing:
        raise EvalkitError(f"'{target}' is no {kind} plugin: it has no {', '.join(missing)}.")
    return plugin
