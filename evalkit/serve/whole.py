"""A policy that answers one request in one call, as a policy that answers by passes.

In: a `Policy`. Out: a `SteppedPolicy` of width 1: one pass for the reply, one for its prediction.
Read next: `local.py`, which hosts either kind.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evalkit.contracts.errors import EpisodeFault
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.stepped import Phase
from evalkit.contracts.types import PolicyReply, PolicyRequest, Prediction


def only_reply(replies: Any, policy_id: str) -> PolicyReply:
    """Return the reply to one request; raise EpisodeFault if a policy returned anything but a list of one."""
    if not isinstance(replies, list) or len(replies) != 1 or not isinstance(replies[0], PolicyReply):
        raise EpisodeFault("policy", f"Policy '{policy_id}' must answer one request with a list of one reply.")
    return replies[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class WholeJob:
    """A request under way: before `infer`, after it, or with its prediction."""

    request: PolicyRequest
    reply: PolicyReply | None = None
    completed: bool = False
    prediction: Prediction | None = None

    @property
    def phase(self) -> Phase:
        """Return `VIDEO` if a prediction was asked for and the reply offers one that is not completed yet."""
        if self.reply is None:
            return Phase.ACTIONS
        return Phase.VIDEO if self.predicts and not self.completed else Phase.DONE

    @property
    def passes_left(self) -> int:
        """Return how many of the two calls are missing."""
        if self.reply is None:
            return 2 if self.request.num_predicted_frames else 1
        return int(self.phase is Phase.VIDEO)

    @property
    def group(self) -> Hashable:
        """Return what no other job has: it shares a pass with none."""
        return id(self.request)

    @property
    def predicts(self) -> bool:
        """Return whether a prediction was asked for and the reply offers one."""
        asked = self.request.num_predicted_frames > 0
        return asked and self.reply is not None and self.reply.prediction is not None


class WholePolicy:
    """A `Policy` as a `SteppedPolicy`: `infer` is one pass, the prediction of its reply another."""

    width = 1

    def __init__(self, policy: Policy) -> None:
        self.spec: PolicySpec = policy.spec
        self._policy = policy

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Start an episode."""
        self._policy.reset(episode_id, env)

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one reply per request, in order."""
        return self._policy.infer(requests)

    def prepare(self, request: PolicyRequest) -> WholeJob:
        """Return the job of a request; nothing is computed yet."""
        return WholeJob(request=request)

    def step(self, jobs: Sequence[WholeJob]) -> list[WholeJob]:
        """Return the jobs after one call of the policy each."""
        return [self._step(job) for job in jobs]

    def _step(self, job: WholeJob) -> WholeJob:
        if job.reply is None:
            return replace(job, reply=only_reply(self._policy.infer([job.request]), self.spec.policy_id))
        if job.reply.prediction is None:
            raise ValueError("A job without prediction is done after its actions.")
        return replace(job, completed=True, prediction=job.reply.prediction())

    def actions(self, job: WholeJob) -> PolicyReply:
        """Return the reply without its prediction."""
        if job.reply is None:
            raise ValueError("A job has no actions before its first pass.")
        return replace(job.reply, prediction=None)

    def finish(self, job: WholeJob) -> Prediction:
        """Return the prediction as the policy gave it; the host's client checks it."""
        return job.prediction  # type: ignore[return-value]
