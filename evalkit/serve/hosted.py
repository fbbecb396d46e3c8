"""A hosted policy as a `Policy`, for callers that ask and wait: the runner's threads.

In: requests. Out: replies as soon as their actions are clean, whose `prediction` waits for the host.
Read next: `local.py`, the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest
from evalkit.serve.handle import Handle
from evalkit.serve.local import PolicyHost


class HostedPolicy:
    """A `Policy` over a host; any number of threads may use it.

    Timings of a reply are the policy's own and those of `Handle.timings_ms`, which those of the prediction join when it
    is there.
    """

    def __init__(self, host: PolicyHost) -> None:
        self.spec: PolicySpec = host.spec
        self._host = host

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Start an episode; raises what the policy raises."""
        self._host.reset(episode_id, env)

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one reply per request, in order; raises what the policy raises, or `NotServed`."""
        handles = [self._host.submit(request) for request in requests]
        return [_reply(handle) for handle in handles]


def _reply(handle: Handle) -> PolicyReply:
    reply = handle.actions()
    return replace(
        reply,
        timings_ms=_Timings(handle, reply.timings_ms),
        prediction=handle.prediction if handle.has_prediction else None,
    )


class _Timings(Mapping[str, float]):
    """The timings of a request as they stand now: those of the policy and those of the host."""

    def __init__(self, handle: Handle, of_policy: Mapping[str, float]) -> None:
        self._handle, self._of_policy = handle, of_policy

    def __getitem__(self, name: str) -> float:
        return {**self._of_policy, **self._handle.timings_ms}[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._of_policy, **self._handle.timings_ms})

    def __len__(self) -> int:
        return len({**self._of_policy, **self._handle.timings_ms})
