"""Settings: dataclasses with defaults, changed by Hydra overrides such as `run.workers=2`.

In: a bench, a policy, overrides. Out: one typed `Config`.
Read next: `evalkit/contracts/overrides.py`, which applies overrides; the `config_type` of a bench or policy for its
own settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from evalkit.contracts.bound import BoundBench, BoundPolicy
from evalkit.contracts.env import Bench
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.overrides import apply_overrides, first_line, leaf_keys
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
    """

    run: RunSettings
    bench: BoundBench
    policy: BoundPolicy
    max_steps: int | None


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
    defaults = OmegaConf.create({"bench": {"max_steps": None}, "policy": {}})
    defaults.run = _writable(RunSettings)
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
    try:
        return Config(
            run=_instance(merged.run),
            bench=BoundBench(plugin=bench, config=_instance(merged.bench[bench.name])),
            policy=BoundPolicy(plugin=policy, config=_instance(merged.policy[policy.name])),
            max_steps=max_steps,
        )
    except (OmegaConfBaseException, ValueError) as error:
        raise BadConfig(f"These settings cannot be used: {first_line(error)}.") from error


def bind_bench(bench: Bench, overrides: Sequence[str]) -> BoundBench:
    """Return a bench with overrides of its settings applied; raises as `load_config` does, for any other key too."""
    config = _bound("bench", bench.name, bench.config_type, overrides)
    return BoundBench(plugin=bench, config=config)


def bind_policy(policy: PolicyPlugin, overrides: Sequence[str]) -> BoundPolicy:
    """Return a policy with overrides of its settings applied; raises as `load_config` does, for any other key too."""
    config = _bound("policy", policy.name, policy.config_type, overrides)
    return BoundPolicy(plugin=policy, config=config)


def _bound(kind: str, name: str, config_type: type, overrides: Sequence[str]) -> Any:
    defaults = OmegaConf.create({kind: {}})
    defaults[kind][name] = _writable(config_type)
    keys = list(leaf_keys(defaults))
    example = f"{keys[0] if keys else f'{kind}.{name}.key'}=..."
    merged = apply_overrides(defaults, overrides, keys=keys, see=f"evalkit list --{kind} {name}", example=example)
    try:
        return _instance(merged[kind][name])
    except (OmegaConfBaseException, ValueError) as error:
        raise BadConfig(f"These settings cannot be used: {first_line(error)}.") from error


def _writable(config_type: type) -> DictConfig:
    """Return the defaults of a frozen dataclass; OmegaConf would refuse to override them otherwise."""
    node: DictConfig = OmegaConf.structured(config_type)
    OmegaConf.set_readonly(node, False)
    return node


def _instance(node: DictConfig) -> Any:
    return OmegaConf.to_object(node)
