"""A hosted policy as a `Policy`, for callers that ask and wait: the runner's threads.

In: requests. Out: replies as soon as their actions are clean, whose `prediction` waits for the host.
Read next: `local.py`, the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest
from evalkit.serve.handle import Handle
from evalkit.serve.local import PolicyHost

Answer = TypeVar("Answer")


class PolicyHangs(EvalkitError):
    """A policy in this process that did not answer in time; nothing can stop it but the end of the process."""


class HostedPolicy:
    """A `Policy` over a host; any number of threads may use it.

    Timings of a reply are the policy's own and those of `Handle.timings_ms`, which those of the prediction join when it
    is there.

    Args:
        host: The host.
        timeout_s: Time limit of every call; None for no limit.
    """

    def __init__(self, host: PolicyHost, timeout_s: float | None = None) -> None:
        self.spec: PolicySpec = host.spec
        self._host, self._timeout_s = host, timeout_s

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Start an episode; raises what the policy raises, or `PolicyHangs`."""
        self._within(partial(self._host.reset, episode_id, env), lambda: False)

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one reply per request, in order; raises what the policy raises, `NotServed` or `PolicyHangs`."""
        handles = [self._host.submit(request) for request in requests]
        return [self._reply(handle) for handle in handles]

    def _reply(self, handle: Handle) -> PolicyReply:
        reply = self._within(handle.actions, handle.acted.done)
        prediction = partial(self._within, handle.prediction, handle.predicted.done)
        return replace(
            reply,
            timings_ms=_Timings(handle, reply.timings_ms),
            prediction=prediction if handle.has_prediction else None,
        )

    def _within(self, call: Callable[[float | None], Answer], is_done: Callable[[], bool]) -> Answer:
        try:
            return call(self._timeout_s)
        except TimeoutError as error:
            if is_done() or self._timeout_s is None:
                raise  # the policy raised it
            raise PolicyHangs(
                f"Policy '{self.spec.policy_id}' did not answer within {self._timeout_s:g} s (run.policy_timeout_s). "
                "It runs in the process of the run, which cannot stop it, so the run ends; records are kept. With "
                "run.policy_process=true it has a process of its own, which is killed and started again. If it only "
                "needs longer, raise run.policy_timeout_s."
            ) from error


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
