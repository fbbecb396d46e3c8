"""What a policy must offer.

In: requests, each with an observation. Out: replies, each with a chunk of actions and perhaps a future to be scored.
Read next: `baselines/floors.py` for the smallest ones, `xwam/policy.py` for the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import Episode, PolicyReply, PolicyRequest


class Policy(Protocol):
    """A policy with its weights in memory. It knows no runner and no simulator.

    A reply depends on the request and on what the same episode asked before, never on other episodes: batching,
    order and restarts must not change an action.
    """

    spec: PolicySpec

    def reset(self, episode: Episode, env: EnvSpec) -> None:
        """Forget what is known of this episode and start it anew; called before its first request."""
        ...

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one reply a request, in order."""
        ...


class PolicyPlugin(Protocol):
    """A plugin of the entry-point group `evalkit.policies`; importing it loads no framework and no weights.

    A policy that draws what it imagines with a lossy codec may offer `codec(config) -> (Prediction -> Prediction)`:
    the codec alone, there and back, whose scores are the ceiling of the policy's own.

    Attributes:
        name: What `--policy` takes.
        summary: One line for `evalkit list`.
        config_type: Frozen dataclass of its settings, all with defaults; overridden as `policy.<name>.<field>=value`.
    """

    name: str
    summary: str
    config_type: type

    def spec(self, config: Any) -> PolicySpec:
        """Return what the policy will need and give, without loading it."""
        ...

    def provenance(self, config: Any) -> dict[str, str]:
        """Return what identifies the policy in plan and run record: hashes of weights, parameter counts, notes."""
        ...

    def make(self, config: Any) -> Policy:
        """Load and return the policy."""
        ...
