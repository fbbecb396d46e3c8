"""Settings from the command line: Hydra overrides such as `run.workers=2`, applied to defaults.

In: defaults, overrides. Out: the defaults with the overrides applied, or one sentence that names the mistake.
Read next: `evalkit/config.py`, which applies them to a bench and a policy; `xwam/training/recipes.py`, to a recipe.

Hydra is imported when the first override is applied, so that an interpreter that only runs envs does not need it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from evalkit.contracts.errors import BadConfig, UnknownName


def apply_overrides(defaults: Any, overrides: Sequence[str], *, keys: Sequence[str], see: str, example: str) -> Any:
    """Return the defaults with Hydra overrides applied, as an OmegaConf node.

    Args:
        defaults: A mapping, or an OmegaConf node of one.
        overrides: `key=value`, in Hydra's grammar.
        keys: The keys that may be overridden.
        see: The command that lists the keys, for error messages.
        example: A correct override, for error messages.

    Raises:
        UnknownName: For a key that does not exist; the message suggests a similar one.
        BadConfig: For text that is not an override, or a value that does not fit its key.

    Example:
        >>> settings = {"workers": 1, "task": "Lift"}
        >>> apply_overrides(settings, ["workers=2"], keys=list(settings), see="evalkit list", example="workers=2")
        {'workers': 2, 'task': 'Lift'}
    """
    from hydra import compose, initialize
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for override in overrides:
        _check(override, keys, see=see, example=example)
    ConfigStore.instance().store("settings", OmegaConf.create(defaults))
    GlobalHydra.instance().clear()
    with initialize(version_base=None, config_path=None):
        try:
            return compose("settings", list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            cause = error.__cause__ or error
            reason = first_line(cause)
            if "is not a ListConfig" in reason:
                reason = "the value must be a list, for example [64,64]"
            raise BadConfig(f"Cannot apply {' '.join(overrides)}: {reason}.") from error


def leaf_keys(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted key of every value of an OmegaConf node.

    Example:
        >>> from omegaconf import OmegaConf
        >>> list(leaf_keys(OmegaConf.create({"run": {"workers": 1}, "seed": 0})))
        ['run.workers', 'seed']
    """
    from omegaconf import DictConfig

    for name in map(str, node):
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none():
            yield from leaf_keys(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def overridden(overrides: Sequence[str], prefix: str) -> list[str]:
    """Return the fields that overrides change, without their prefix, each once.

    Example:
        >>> overridden(["policy.xwam.device=cuda", "run.workers=2"], "policy.xwam.")
        ['device']
    """
    keys = [override.partition("=")[0] for override in overrides]
    return list(dict.fromkeys(key.removeprefix(prefix).partition(".")[0] for key in keys if key.startswith(prefix)))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message without its full stop; its type where the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _check(override: str, keys: Sequence[str], *, see: str, example: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        key = OverridesParser.create().parse_override(override).key_or_group
    except HydraException as error:
        cause = f" ({first_line(error)})" if "=" in override else ""
        raise BadConfig(f"'{override}' is not an override; write key=value, for example {example}{cause}.") from error
    if key not in keys:
        same_field = [known for known in keys if known.rpartition(".")[2] == key.rpartition(".")[2]]
        raise UnknownName("setting", key, same_field or keys, see=see)
