"""Settings: dataclasses with defaults, changed by Hydra overrides such as `run.workers=2`.

In: a bench, a policy, overrides. Out: one typed `Config`.
Read next: `cli/main.py`, which calls it; the `config_type` of a bench or policy for its own settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from evalkit.contracts.env import Bench
from evalkit.contracts.errors import BadConfig, UnknownName
from evalkit.contracts.policy import PolicyPlugin
from evalkit.run.settings import RunSettings


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of one call.

    Attributes:
        run: How the plan is carried out.
        bench: An instance of the bench's `config_type`.
        policy: An instance of the policy's `config_type`.
        max_steps: `bench.max_steps`: cuts the episodes of any bench short; None keeps the protocol's limits.
    """

    run: RunSettings
    bench: Any
    policy: Any
    max_steps: int | None


def load_config(bench: Bench, policy: PolicyPlugin, overrides: Sequence[str]) -> Config:
    """Return the defaults with the overrides applied.

    Args:
        bench: Its settings stand under `bench.<name>`.
        policy: Its settings stand under `policy.<name>`.
        overrides: Hydra overrides, `key=value`.

    Raises:
        UnknownName: For a key that does not exist.
        BadConfig: For a value that does not fit its key, or text that is no override.
    """
    defaults = OmegaConf.create({"bench": {"max_steps": None}, "policy": {}})
    defaults.run = _writable(RunSettings)
    defaults.bench[bench.name] = _writable(bench.config_type)
    defaults.policy[policy.name] = _writable(policy.config_type)
    keys = list(_keys(defaults))
    for override in overrides:
        _check_override(override, keys, see=f"evalkit list --bench {bench.name} --policy {policy.name}")
    merged = _compose(defaults, overrides)
    max_steps = merged.bench.max_steps
    if max_steps is not None and type(max_steps) is not int:
        raise BadConfig(f"bench.max_steps must be a whole number or null, got {max_steps!r}.")
    try:
        return Config(
            run=_instance(merged.run),
            bench=_instance(merged.bench[bench.name]),
            policy=_instance(merged.policy[policy.name]),
            max_steps=max_steps,
        )
    except (OmegaConfBaseException, ValueError) as error:
        raise BadConfig(f"These settings cannot be used: {_first_line(error)}.") from error


def _writable(config_type: type) -> DictConfig:
    """Return the defaults of a frozen dataclass, which OmegaConf would refuse to override."""
    node: DictConfig = OmegaConf.structured(config_type)
    OmegaConf.set_readonly(node, False)
    return node


def _instance(node: DictConfig) -> Any:
    return OmegaConf.to_object(node)


def _check_override(override: str, keys: list[str], *, see: str) -> None:
    try:
        key = OverridesParser.create().parse_override(override).key_or_group
    except HydraException as error:
        raise BadConfig(
            f"'{override}' is not an override; write key=value, for example run.workers=2 ({_first_line(error)})."
        ) from error
    if key not in keys:
        raise UnknownName("setting", key, keys, see=see)


def _compose(defaults: DictConfig, overrides: Sequence[str]) -> DictConfig:
    ConfigStore.instance().store("evalkit", defaults)
    GlobalHydra.instance().clear()
    with initialize(version_base=None, config_path=None):
        try:
            return compose("evalkit", list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            cause = error.__cause__ or error
            raise BadConfig(f"Cannot apply {' '.join(overrides)}: {_first_line(cause)}.") from error


def _keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in map(str, node):
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none():
            yield from _keys(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
