"""Checks that every episode fits the model: views, arms, kind of actions, control rate.

In: the scan of a data set, a model. Out: nothing, or an error that names both sides and the episodes.
Read next: `trainer.py`, which checks before it starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evalkit.contracts.spec import OSC_DELTA_BASE
from evalkit.dataset.layout import CAMERA_KINDS, EpisodeSignature, Scan
from xwam.config import ModelConfig
from xwam.robots.interfaces import INTERFACES

MAX_NAMED = 5
"""Largest number of episodes that a message names; it counts the others."""


def check_fit(root: Path, scan: Scan, model: ModelConfig) -> None:
    """Raise ValueError unless all usable episodes fit the model.

    Raises:
        ValueError: Names what the data hold, what the model needs, and the episodes.
    """
    unfit: dict[str, list[str]] = {}
    for key, signature in scan.signatures.items():
        if problems := _problems(signature, model):
            unfit.setdefault("; ".join(problems), []).append(key)
    if unfit:
        reasons = " And ".join(f"{reason} ({_share(keys, len(scan.signatures))})." for reason, keys in unfit.items())
        raise ValueError(f"{root} and model '{model.name}' do not fit: {reasons}")


def _problems(signature: EpisodeSignature, model: ModelConfig) -> list[str]:
    view_kinds: dict[str, str] = {kind: view for view, kind in CAMERA_KINDS.items()}
    pairs: list[tuple[str, Any, Any]] = [
        ("views", tuple(view_kinds[kind] for kind in signature.kinds), model.views),
        ("arms", signature.arms, model.arms),
        ("raw controller actions", signature.raw, INTERFACES[model.bench].layout == OSC_DELTA_BASE),
        ("rate in Hz", signature.rates_hz, signature.rates_hz if model.control_hz is None else {model.control_hz}),
    ]
    return [
        f"{name}: the data hold {_shown(actual)}, the model needs {_shown(needed)}"
        for name, actual, needed in pairs
        if actual != needed
    ]


def _shown(value: Any) -> str:
    return ", ".join(f"{rate:g}" for rate in sorted(value)) if isinstance(value, frozenset | set) else str(value)


def _share(keys: list[str], num_episodes: int) -> str:
    return "all episodes" if len(keys) == num_episodes else f"{len(keys)} of {num_episodes} episodes: {named(keys)}"


def named(keys: list[str]) -> str:
    """Return the first few names and the number of the others.

    Example:
        >>> named(["a", "b", "c", "d", "e", "f", "g"])
        'a, b, c, d, e and 2 more'
    """
    return ", ".join(keys[:MAX_NAMED]) + (f" and {len(keys) - MAX_NAMED} more" if len(keys) > MAX_NAMED else "")
