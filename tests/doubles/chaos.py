"""A policy for the chaos test: faults that depend on the episode, and connections that break on a signal.

In: episodes. Out: the actions of the policy `fake`, or a fault that every attempt of the episode repeats.
Read next: `tests/chaos.py`, which runs it; `policy.py`, the policy without faults.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evalkit.contracts.spec import PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest
from tests.doubles.policy import FakePolicy, FakePolicyConfig, FakePolicyPlugin

EVERY = 12
"""One episode of so many returns NaN, one a wrong shape."""

HANGS_AT = 17
"""Index of the one episode per task in which the policy hangs."""

BREAK = signal.SIGUSR1


@dataclass(frozen=True, kw_only=True)
class ChaosPolicyConfig:
    """`hangs`: whether one episode per task makes the policy hang."""

    hangs: bool = True
    infer_s: float = 0.02


class ChaosPolicyPlugin:
    """The plugin."""

    name = "chaos"
    summary = "a double that misbehaves in some episodes"
    config_type = ChaosPolicyConfig

    def spec(self, config: ChaosPolicyConfig) -> PolicySpec:
        return replace(FakePolicyPlugin().spec(FakePolicyConfig()), policy_id="chaos")

    def provenance(self, config: ChaosPolicyConfig) -> dict[str, str]:
        return {"weights": "none"}

    def make(self, config: ChaosPolicyConfig) -> ChaosPolicy:
        with contextlib.suppress(ValueError):  # not in the main thread: nobody will signal it
            signal.signal(BREAK, lambda *_: break_connections())
        return ChaosPolicy(config, self.spec(config))


class ChaosPolicy(FakePolicy):
    """Goes straight, but for the episodes that must fail."""

    def __init__(self, config: ChaosPolicyConfig, spec: PolicySpec) -> None:
        super().__init__(FakePolicyConfig(infer_s=config.infer_s), spec)
        self._hangs = config.hangs

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        replies = super().infer(requests)
        return [self._with_fault(request, reply) for request, reply in zip(requests, replies, strict=True)]

    def _with_fault(self, request: PolicyRequest, reply: PolicyReply) -> PolicyReply:
        assert request.episode is not None
        index = request.episode.index
        if request.chunk_idx != 1:
            return reply
        if self._hangs and index == HANGS_AT:
            time.sleep(3600)
        if index % EVERY == 3:
            return replace(reply, actions=np.full_like(reply.actions, np.nan))
        if index % EVERY == 7:
            return replace(reply, actions=reply.actions[:, :7])
        return reply


def break_connections() -> None:
    """Shut down every connection to a Unix socket of this process, as a network that fails does."""
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(path.stat().st_mode):
                continue
            with socket.socket(fileno=os.dup(int(path.name))) as each:
                named = each.family == socket.AF_UNIX and bool(each.getsockname())
                if named and not each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    each.shutdown(socket.SHUT_RDWR)
