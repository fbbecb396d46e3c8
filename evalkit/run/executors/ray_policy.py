"""A policy in Ray actors: each holds the weights once, on whatever node has its device, and serves many lanes.

In: a policy with its settings, a Ray cluster. Out: `RayPolicy`, a `Policy` that any process of the cluster may use.
Read next: `ray.py`, which gives them to lanes; `evalkit/serve/hosted.py`, what an actor runs.

Ray restarts an actor that died, on another node if its own is lost. What it remembered of episodes is lost with it, so
those episodes start again.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import Any, NamedTuple

import ray
from ray.exceptions import GetTimeoutError, NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, RayError

from evalkit.contracts.bound import BoundPolicy
from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest, Prediction
from evalkit.run.settings import RunSettings

CONDEMN_S = 10.0
"""Seconds in which an actor whose policy hangs answers whether it is condemned already."""

POLL_S = 0.5
"""Seconds between two questions whether an actor serves again."""


LOST = (RayActorError, NodeDiedError, ObjectLostError, OutOfMemoryError)
"""What Ray raises where an actor died, its node was lost before the answer had left it, or Ray killed it for memory."""


class Serving(NamedTuple):
    """An actor that serves: the life it is in, which ends with its memory of episodes, and its node."""

    life: str
    node_id: str


@dataclass(frozen=True, kw_only=True)
class Failed:
    """What a call of an actor raised, as data: an exception of a plugin may not be readable on another node."""

    fault: bool
    blame: Any
    reason: str
    retriable: bool = False
    counts: bool = True

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """Return an error as data."""
        if isinstance(error, EpisodeFault):
            return cls(
                fault=True, blame=error.blame, reason=error.reason, retriable=error.retriable, counts=error.counts
            )
        if isinstance(error, EvalkitError):
            return cls(fault=False, blame="policy", reason=str(error))
        from evalkit.contracts.errors import describe

        return cls(fault=True, blame="policy", reason=describe(error))

    def raise_again(self) -> None:
        """Raise the error here."""
        if self.fault:
            raise EpisodeFault(self.blame, self.reason, retriable=self.retriable, counts=self.counts)
        raise EvalkitError(self.reason)


STARTED_AGAIN = Failed(
    fault=True, blame="policy", reason="The policy was started again meanwhile.", retriable=True, counts=False
)
"""For an episode that an earlier life of the actor began; whatever ended that life was no fault of this episode."""


class PolicyActor:
    """The policy on its node; `ray.remote` makes it an actor."""

    def __init__(self, policy: BoundPolicy, bench: str, max_requests: int) -> None:
        from evalkit.serve.hosted import HostedPolicy
        from evalkit.serve.local import PolicyHost
        from evalkit.serve.scheduler import Limits

        self._life = uuid.uuid4().hex
        self._condemning, self._condemned = threading.Lock(), False
        self._failed: Failed | None = None
        self._max_requests = max_requests
        self._predictions: OrderedDict[tuple[str, int], Callable[[], Prediction]] = OrderedDict()
        try:
            limits = Limits(max_jobs=max_requests, max_uncollected=max_requests)
            self._policy = HostedPolicy(PolicyHost(policy.for_bench(bench).load(), limits))
        except Exception as error:
            self._failed = Failed.of(error)

    def serving(self) -> Serving | Failed:
        """Return the life of this actor, or why the policy cannot be loaded."""
        node_id = ray.get_runtime_context().get_node_id()
        return self._failed or Serving(self._life, node_id)

    def condemn(self, life: str) -> bool:
        """Return whether the caller is the first that wants this life to end; it then kills the actor."""
        with self._condemning:
            first = life in ("", self._life) and not self._condemned
            self._condemned |= first
        return first

    def reset(self, episode_id: str, env: EnvSpec) -> Failed | None:
        """Start an episode."""
        try:
            self._policy.reset(episode_id, env)
        except Exception as error:
            return Failed.of(error)
        return None

    def infer(self, life: str, requests: Sequence[PolicyRequest]) -> Failed | list[tuple[PolicyReply, bool]]:
        """Return one reply per request without its prediction, and whether there will be one."""
        if life != self._life:
            return STARTED_AGAIN
        try:
            replies = self._policy.infer(requests)
        except Exception as error:
            return Failed.of(error)
        answers = []
        for request, reply in zip(requests, replies, strict=True):
            if reply.prediction is not None:
                self._predictions[request.episode_id, request.chunk_idx] = reply.prediction
            plain = replace(reply, prediction=None, timings_ms=dict(reply.timings_ms))
            answers.append((plain, reply.prediction is not None))
        while len(self._predictions) > self._max_requests:  # of episodes that ended in a fault
            self._predictions.popitem(last=False)
        return answers

    def predict(self, life: str, episode_id: str, chunk_idx: int) -> Failed | Prediction:
        """Return the prediction of a request; it can be collected once."""
        if life != self._life:
            return STARTED_AGAIN
        try:
            return self._predictions.pop((episode_id, chunk_idx))()
        except Exception as error:
            return Failed.of(error)


class RayPolicy:
    """A `Policy` that an actor runs; a process of the cluster to which it is sent may use it.

    Args:
        actor: The handle of a `PolicyActor`.
        spec: Spec of the policy.
        reply_s: Time limit of a call.
        start_s: Time limit to load the policy, on the first node or a later one.
    """

    def __init__(self, actor: Any, spec: PolicySpec, *, reply_s: float, start_s: float) -> None:
        self.spec = spec
        self._actor, self._reply_s, self._start_s = actor, reply_s, start_s
        self._serving: Serving | None = None

    def await_ready(self) -> Serving:
        """Return once the actor serves.

        Raises:
            EvalkitError: If the policy cannot be loaded.
            EpisodeFault: If that takes too long.
        """
        deadline = time.monotonic() + self._start_s
        while time.monotonic() < deadline:
            try:
                left_s = max(0.0, deadline - time.monotonic())
                serving = ray.get(self._actor.serving.remote(), timeout=left_s)
            except LOST:
                time.sleep(POLL_S)
                continue
            except GetTimeoutError:
                break
            if isinstance(serving, Failed):
                raise EvalkitError(serving.reason)
            self._serving = serving
            return serving  # type: ignore[no-any-return]
        raise EpisodeFault(
            "policy",
            f"Policy '{self.spec.policy_id}' was not loaded in its Ray actor within {self._start_s:g} s "
            f"(run.policy_start_timeout_s).",
            retriable=True,
        )

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Start an episode; wait for the actor if Ray starts it again."""
        self.await_ready()
        self._ask(self._actor.reset.remote, episode_id, env)

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one reply per request, in order.

        Raises:
            EpisodeFault: What the policy raised; retriable if the actor died or did not answer in time.
            EvalkitError: What the policy refused.
        """
        if self._serving is None:
            raise EpisodeFault("policy", "An episode must be reset before its first request.")
        life = self._serving.life
        answers = self._ask(self._actor.infer.remote, life, list(requests))
        return [
            replace(reply, prediction=partial(self._predict, life, request)) if predicts else reply
            for request, (reply, predicts) in zip(requests, answers, strict=True)
        ]

    def _predict(self, life: str, request: PolicyRequest) -> Prediction:
        prediction: Prediction = self._ask(self._actor.predict.remote, life, request.episode_id, request.chunk_idx)
        return prediction

    def _ask(self, call: Callable[..., Any], *arguments: object) -> Any:
        try:
            answer = ray.get(call(*arguments), timeout=self._reply_s)
        except GetTimeoutError:
            limit = f"{self._reply_s:g} s (run.policy_timeout_s)"
            raise self._lost(f"did not answer within {limit}, and its actor was killed", counts=self._kill()) from None
        except LOST as error:
            if self._node_is_lost():
                raise self._lost("was on a node that is lost", counts=False) from error
            raise self._lost("died in its Ray actor", counts=True) from error
        if isinstance(answer, Failed):
            answer.raise_again()
        return answer

    def _kill(self) -> bool:
        """Kill the actor of this life, so that Ray starts it again; return False if another lane does or has."""
        life = "" if self._serving is None else self._serving.life
        with suppress(RayError, GetTimeoutError):
            if not ray.get(self._actor.condemn.remote(life), timeout=CONDEMN_S):
                return False
        ray.kill(self._actor, no_restart=False)
        return True

    def _node_is_lost(self) -> bool:
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        return self._serving is not None and self._serving.node_id not in alive

    def _lost(self, what: str, *, counts: bool) -> EpisodeFault:
        return EpisodeFault("policy", f"Policy '{self.spec.policy_id}' {what}.", retriable=True, counts=counts)


@contextmanager
def ray_policies(policy: BoundPolicy, bench: str, settings: RunSettings) -> Iterator[list[RayPolicy]]:
    """Load a policy in `run.servers` actors, which end with the block.

    An actor whose policy has a device of CUDA reserves one GPU. One on a CPU reserves nothing, so that it finds a place
    again on nodes that lanes fill.

    Raises:
        BadConfig: If the cluster has fewer GPUs.
        EvalkitError: If the policy cannot be loaded.
    """
    from evalkit.run.policies import REQUESTS_PER_LANE, has_device

    if settings.server_devices and not has_device(policy):
        raise BadConfig(f"run.server_devices cannot be used: policy '{policy.name}' has no setting 'device'.")
    devices = list(islice(cycle(settings.server_devices or (None,)), settings.servers))
    placed = [_on(device, policy) for device in devices]
    gpus = [int(str(getattr(each.config, "device", "")).startswith("cuda")) for each in placed]
    present = ray.cluster_resources().get("GPU", 0)
    if sum(gpus) > present:
        raise BadConfig(
            f"{sum(gpus)} servers of policy '{policy.name}' need a GPU each, and the Ray cluster has {present:g}; "
            f"give fewer run.servers, or policy.{policy.name}.device=cpu."
        )
    max_requests = REQUESTS_PER_LANE * settings.workers
    actors: list[Any] = [
        ray.remote(PolicyActor)
        .options(
            num_cpus=0,
            num_gpus=num_gpus,
            max_restarts=-1,
            max_concurrency=2 * max_requests + 4,
            scheduling_strategy="SPREAD",
        )
        .remote(each, bench, max_requests)
        for each, num_gpus in zip(placed, gpus, strict=True)
    ]
    limits = {"reply_s": settings.policy_timeout_s, "start_s": settings.policy_start_timeout_s}
    policies = [RayPolicy(actor, policy.spec(), **limits) for actor in actors]
    try:
        for each in policies:
            try:
                each.await_ready()
            except EpisodeFault as fault:
                raise EvalkitError(fault.reason) from fault
        yield policies
    finally:
        for actor in actors:
            ray.kill(actor)


def _on(device: str | None, policy: BoundPolicy) -> BoundPolicy:
    """Return the policy with a device; None for its own setting."""
    return policy if device is None else replace(policy, config=replace(policy.config, device=device))


def _check_is_policy(policy: RayPolicy) -> Policy:
    """Let the type checker compare `RayPolicy` with the protocol."""
    return policy
