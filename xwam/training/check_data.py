"""Whether a data set is what a model is trained on: views, arms, kind of actions, rate; every episode is asked.

In: what a scan found, a model. Out: nothing, or one sentence that names both sides and the episodes.
Read next: `trainer.py`, which asks before it starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evalkit.contracts.spec import OSC_DELTA_BASE
from evalkit.dataset.layout import EpisodeSignature, Scan
from xwam.config import ModelConfig
from xwam.robots.interfaces import INTERFACES

NAMED = 5
"""Episodes that are named one by one; of more, there is a count."""


def check_fit(root: Path, found: Scan, model: ModelConfig) -> None:
    """Return quietly if all usable episodes are what a model is trained on.

    Raises:
        ValueError: Names what the data hold, what the model needs, and the episodes in question.
    """
    unfit: dict[str, list[str]] = {}
    for key, signature in found.signatures.items():
        if problems := _problems(signature, model):
            unfit.setdefault("; ".join(problems), []).append(key)
    if unfit:
        reasons = " And ".join(f"{reason} ({_share(keys, len(found.signatures))})." for reason, keys in unfit.items())
        raise ValueError(f"{root} and model '{model.name}' do not fit: {reasons}")


def _problems(signature: EpisodeSignature, model: ModelConfig) -> list[str]:
    kinds = {"static": "static", "dynamic": "wrist"}
    pairs: list[tuple[str, Any, Any]] = [
        ("views", tuple(kinds[kind] for kind in signature.kinds), model.views),
        ("arms", signature.arms, model.arms),
        ("raw controller actions", signature.raw, INTERFACES[model.bench].layout == OSC_DELTA_BASE),
        ("rate in Hz", signature.rates_hz, signature.rates_hz if model.control_hz is None else {model.control_hz}),
    ]
    return [
        f"{what}: the data hold {_shown(held)}, the model needs {_shown(needed)}"
        for what, held, needed in pairs
        if held != needed
    ]


def _shown(value: Any) -> str:
    return ", ".join(f"{rate:g}" for rate in sorted(value)) if isinstance(value, frozenset | set) else str(value)


def _share(keys: list[str], num_episodes: int) -> str:
    return "all episodes" if len(keys) == num_episodes else f"{len(keys)} of {num_episodes} episodes: {named(keys)}"


def named(keys: list[str]) -> str:
    """Return the first few names, and how many there are beside them.

    Example:
        >>> named(["a", "b", "c", "d", "e", "f", "g"])
        'a, b, c, d, e and 2 more'
    """
    return ", ".join(keys[:NAMED]) + (f" and {len(keys) - NAMED} more" if len(keys) > NAMED else "")
