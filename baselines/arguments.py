"""What commands that drive a bench without the harness have in common: its settings, as `--set KEY=VALUE`, and counts.

In: text. Out: values.
Read next: `replay/__main__.py` and `scripted/record.py`, the commands.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from evalkit.contracts.errors import BadConfig
from evalkit.record.plan import Configured


def count(text: str) -> int:
    """Return a whole number of 1 or more, as a type of argparse.

    Raises:
        ArgumentTypeError: If it is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"must be a whole number, 1 or more, got '{text}'")
    return int(text)


def settings_of(pairs: Sequence[str]) -> dict[str, Any]:
    """Return settings of a bench or a policy, each value read as YAML.

    Raises:
        BadConfig: If one of them is no pair.

    Example:
        >>> settings_of(["image_px=64", "art=placeholder"])
        {'image_px': 64, 'art': 'placeholder'}
    """
    import yaml

    settings = {}
    for pair in pairs:
        key, found, value = pair.partition("=")
        if not found:
            raise BadConfig(f"'{pair}' must be a setting and its value, for example image_px=256.")
        settings[key] = yaml.safe_load(value)
    return settings


def configured(name: str, config_type: type, pairs: Sequence[str]) -> Configured:
    """Return a bench or a policy with its settings.

    Raises:
        BadConfig: If it has no such setting.
    """
    settings, known = settings_of(pairs), [entry.name for entry in fields(config_type)]
    for key in settings:
        if key not in known:
            raise BadConfig(f"'{name}' has no setting '{key}'; it has {', '.join(known) or 'none'}.")
    return Configured(name=name, config=config_type(**settings), given=tuple(settings))
