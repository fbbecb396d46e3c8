"""Settings: dataclasses with defaults, changed by Hydra overrides such as `run.workers=2`.

In: a bench, a policy, overrides. Out: one typed `Config`.
Read next: `evalkit/contracts/overrides.py`, which applies overrides; the `config_type` of a bench or policy for its
own settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from evalkit.contracts.bound import BoundBench, BoundPolicy
from evalkit.contracts.env import Bench
from evalkit.contracts.errors import BadConfig, UnknownName
from evalkit.contracts.execution import Execution
from evalkit.contracts.overrides import apply_overrides, first_line, leaf_keys, overridden
from evalkit.contracts.plugins import BENCHES, POLICIES, load_bench, load_policy, names
from evalkit.contracts.policy import PolicyPlugin
from evalkit.run.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of one call.

    Attributes:
        run: How the plan is carried out.
        bench: The bench with its settings.
        policy: The policy with its settings.
        max_steps: `bench.max_steps`: shortens the episodes of any bench; None keeps the protocol's limits.
        execution: What the robot does while the policy computes.
    """

    run: RunSettings
    bench: BoundBench
    policy: BoundPolicy
    max_steps: int | None
    execution: Execution


def load_config(bench: Bench, policy: PolicyPlugin, overrides: Sequence[str]) -> Config:
    """Return the defaults with the overrides applied.

    Args:
        bench: Its settings are `bench.<name>.<field>`.
        policy: Its settings are `policy.<name>.<field>`.
        overrides: Hydra overrides, `key=value`.

    Raises:
        UnknownName: For a key that does not exist.
        BadConfig: For a value that does not fit its key, or text that is not an override.
    """
    _check_owners(overrides, {"bench": bench.name, "policy": policy.name})
    defaults = OmegaConf.create({"bench": {"max_steps": None}, "policy": {}})
    defaults.run, defaults.execution = _writable(RunSettings), _writable(Execution)
    defaults.bench[bench.name] = _writable(bench.config_type)
    defaults.policy[policy.name] = _writable(policy.config_type)
    merged = apply_overrides(
        defaults,
        overrides,
        keys=list(leaf_keys(defaults)),
        see=f"evalkit list --bench {bench.name} --policy {policy.name}",
        example="run.workers=2",
    )
    max_steps = merged.bench.max_steps
    if max_steps is not None and type(max_steps) is not int:
        raise BadConfig(f"bench.max_steps must be a whole number or null, got {max_steps!r}.")
    return Config(
        run=_built(merged.run, "run"),
        bench=BoundBench(plugin=bench, config=_built(merged.bench[bench.name], f"bench.{bench.name}")),
        policy=BoundPolicy(
            plugin=policy,
            config=_built(merged.policy[policy.name], f"policy.{policy.name}"),
            given=tuple(overridden(overrides, f"policy.{policy.name}.")),
        ),
        max_steps=max_steps,
        execution=_built(merged.execution, "execution"),
    )


def _check_owners(overrides: Sequence[str], chosen: Mapping[str, str]) -> None:
    """Raise BadConfig for a setting of an installed bench or policy that is not the chosen one."""
    installed = {"bench": names(BENCHES), "policy": names(POLICIES)}
    for override in overrides:
        kind, _, rest = override.partition("=")[0].partition(".")
        owner, dot, _ = rest.partition(".")
        if dot and owner in installed.get(kind, []) and owner != chosen[kind]:
            raise BadConfig(f"'{override}' has no effect: the {kind} is '{chosen[kind]}'; add --{kind} {owner}.")


def bind_bench(name: str, overrides: Sequence[str] = ()) -> BoundBench:
    """Return the bench of this name with overrides of its settings applied; any other key is unknown.

    Raises:
        UnknownName: If there is no such bench or setting.
        BadConfig: For a value that does not fit its key, or text that is not an override.
        EvalkitError: If the bench cannot be imported, or lacks a member.
    """
    plugin = load_bench(name)
    config, given = _overridden("bench", plugin, overrides)
    return BoundBench(plugin=plugin, config=config, given=given, loaded_as=name)


def bind_policy(name: str, overrides: Sequence[str] = ()) -> BoundPolicy:
    """Return the policy of this name with overrides of its settings applied; raises as `bind_bench` does."""
    plugin = load_policy(name)
    config, given = _overridden("policy", plugin, overrides)
    return BoundPolicy(plugin=plugin, config=config, given=given, loaded_as=name)


def build_config(config_type: type, settings: Mapping[str, Any], *, see: str) -> Any:
    """Return a config with these settings, checked as overrides are.

    Args:
        config_type: Dataclass of the settings.
        settings: Values by name.
        see: The command that lists the names, for error messages.

    Raises:
        UnknownName: For a setting that does not exist.
        BadConfig: For a value that does not fit its setting.
    """
    node = _writable(config_type)
    known = [str(name) for name in node]
    for name, value in settings.items():
        if name not in known:
            raise UnknownName("setting", name, known, see=see)
        try:
            node[name] = value
        except OmegaConfBaseException as error:
            raise BadConfig(f"{name}={value!r} cannot be used: {first_line(error)}.") from error
    return _built(node, "")


def _overridden(kind: str, plugin: Bench | PolicyPlugin, overrides: Sequence[str]) -> tuple[Any, tuple[str, ...]]:
    """Return a plugin's config with overrides applied, and the names of the settings that they change."""
    name = plugin.name
    defaults = OmegaConf.create({kind: {}})
    defaults[kind][name] = _writable(plugin.config_type)
    keys = list(leaf_keys(defaults))
    example = f"{keys[0] if keys else f'{kind}.{name}.key'}=..."
    merged = apply_overrides(defaults, overrides, keys=keys, see=f"evalkit list --{kind} {name}", example=example)
    return _built(merged[kind][name], f"{kind}.{name}"), tuple(overridden(overrides, f"{kind}.{name}."))


def _built(node: DictConfig, prefix: str) -> Any:
    """Return the dataclass of a node whose keys begin with a prefix.

    Raises:
        BadConfig: If a setting is missing or not finite, or the dataclass refuses a value.
    """
    try:
        config: Any = OmegaConf.to_object(node)
    except (OmegaConfBaseException, ValueError) as error:
        raise BadConfig(f"These settings cannot be used: {first_line(error)}.") from error
    for entry in fields(config):
        value = getattr(config, entry.name)
        if any(isinstance(number, float) and not math.isfinite(number) for number in _numbers(value)):
            name = f"{prefix}.{entry.name}".removeprefix(".")
            raise BadConfig(f"{name} must be finite, got {value}.")
    return config


def _numbers(value: Any) -> Iterator[Any]:
    """Yield a value, or the values that it holds."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            yield from _numbers(each)
    else:
        yield value


def _writable(config_type: type) -> DictConfig:
    """Return the defaults of a frozen dataclass; OmegaConf would refuse to override them otherwise."""
    node: DictConfig = OmegaConf.structured(config_type)
    OmegaConf.set_readonly(node, False)
    return node
