"""The codec of the policy that ran, there and back: the ceiling of what it can show.

In: a run's plan. Out: how any process loads the policy's codec; or why it cannot be had, in a sentence.
Read next: `chunk.py`, which scores it as `codec_round_trip`; `evalkit/contracts/policy.py` for what a plugin offers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from evalkit.contracts import plugins
from evalkit.contracts.errors import EvalkitError
from evalkit.score.chunk import RoundTrip
from evalkit.store.plan import Plan


@dataclass(frozen=True, kw_only=True)
class CodecChoice:
    """A codec that any process can load.

    Attributes:
        policy: The plugin, by name or `module:attribute`.
        settings: Its settings as JSON.
    """

    policy: str
    settings: str


def find_codec(
    plan: Plan, *, policy: str | None = None, changes: Mapping[str, Any] | None = None
) -> CodecChoice | str | None:
    """Return the codec of the policy that a plan names, or why it cannot be had; None where nothing was imagined.

    The policy is made anew from the plan's settings, and must have the provenance that the plan states: the codec of
    other weights is another ceiling.

    Args:
        plan: Of the run.
        policy: Where the plugin is found, if not under the plan's name.
        changes: Settings that leave the policy what it is: where its weights lie now, on which device they run.
    """
    if not any(spec.get("predicts") for spec in plan.policy.specs.values()):
        return None
    name = policy or plan.policy.name
    try:
        plugin = plugins.load_policy(name)
        if not hasattr(plugin, "codec"):
            return f"policy '{plan.policy.name}' offers no codec."
        config = plugin.config_type(**{**plan.policy.config, **(changes or {})})
        if difference := _difference(plan.policy.provenance, plugin.provenance(config)):
            return f"the policy here is not the one that ran: {difference}."
        return CodecChoice(policy=name, settings=json.dumps(asdict(config)))
    except EvalkitError as error:
        return f"policy '{name}' cannot be made again: {error}"
    except Exception as error:  # a plugin is anyone's code
        return f"policy '{name}' cannot be made again: {type(error).__name__}: {error}"


@lru_cache(maxsize=1)
def load_codec(choice: CodecChoice) -> RoundTrip | str:
    """Return a codec, or why it cannot be loaded; loaded once a process."""
    try:
        plugin: Any = plugins.load_policy(choice.policy)
        return plugin.codec(plugin.config_type(**json.loads(choice.settings)))  # type: ignore[no-any-return]
    except Exception as error:  # a plugin is anyone's code
        return f"the codec of policy '{choice.policy}' cannot be loaded: {type(error).__name__}: {error}"


def _difference(planned: Mapping[str, str], here: Mapping[str, str]) -> str:
    for key in dict.fromkeys([*planned, *here]):
        if planned.get(key) != here.get(key):
            return f"{key} is '{here.get(key)}', the plan says '{planned.get(key)}'"
    return ""
