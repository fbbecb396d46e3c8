"""A policy that answers by denoising steps, so that requests of several envs can share forward passes.

In: requests. Out: jobs that one pass after the other carries on; actions as soon as they are clean, predictions later.
Read next: `policy.py` for policies that answer one request in one call; `evalkit/serve/scheduler.py`, which decides
which jobs share the next pass.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import Enum
from typing import Any, Protocol, runtime_checkable

from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest, Prediction


class Phase(str, Enum):  # noqa: UP042  Python 3.10 of env processes has no StrEnum
    """What the next pass of a job is for."""

    ACTIONS = "actions"
    VIDEO = "video"
    DONE = "done"


class Job(Protocol):
    """A request under way, a class of the policy. A pass returns a new job and leaves the old one as it was."""

    @property
    def phase(self) -> Phase:
        """Return `ACTIONS` until the actions are clean, then `VIDEO` if a prediction was asked for, then `DONE`."""
        ...

    @property
    def passes_left(self) -> int:
        """Return how many passes are missing until `DONE`, at most: a policy may skip some of them."""
        ...

    @property
    def group(self) -> Hashable:
        """Return what jobs must have in common to share a pass: sizes of tensors, length of a cache."""
        ...


@runtime_checkable
class SteppedPolicy(Protocol):
    """A policy whose requests advance by denoising steps.

    The result of a job does not depend, to the bit, on the other jobs of its passes: every pass has `width` rows, and
    rows without a job are padding. A job with NaN or huge numbers changes no other.

    Its `infer` gives the same actions and predictions as `prepare`, `step`, `actions` and `finish`. One thread
    calls all but `finish`, which another thread calls meanwhile for other jobs.
    """

    spec: PolicySpec
    width: int

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Start an episode, as `Policy.reset`."""
        ...

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one reply per request, in order, as `Policy.infer`."""
        ...

    def prepare(self, request: PolicyRequest) -> Any:
        """Return the `Job` of a request before its first pass: images, state and prompt are encoded."""
        ...

    def step(self, jobs: Sequence[Any]) -> list[Any]:
        """Return the jobs after one pass that they share, in order, as soon as the pass is computed (on a GPU too).

        Args:
            jobs: 1 to `width` jobs of one group, none of them `DONE`.
        """
        ...

    def actions(self, job: Any) -> PolicyReply:
        """Return the reply of a job whose actions are clean, without its prediction."""
        ...

    def finish(self, job: Any) -> Prediction:
        """Return the prediction of a job that is `DONE`: its latents are decoded, as many frames as were asked for."""
        ...
