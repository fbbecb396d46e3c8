"""A model in memory as a policy: requests go through the engine of its family, alone or in shared passes.

In: requests of evalkit, an engine. Out: replies of evalkit.
Read next: `stepped.py` for the engine; `plugin.py`, which loads the model; `evalkit/contracts/stepped.py` for the
contract.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.stepped import Phase
from evalkit.contracts.types import PolicyReply, PolicyRequest, Prediction
from xwam.serving.seen import Seen

if TYPE_CHECKING:
    from xwam.serving.stepped import SteppedEngine, UnderWay


@dataclass(frozen=True, kw_only=True, eq=False)
class EngineJob:
    """A request of evalkit under way.

    Attributes:
        under_way: The engine's request.
        given: Actions of the request; None if the model acts.
        num_frames: Frames of the prediction; 0 for none.
        encode_ms: Time until its first pass could begin.
        denoise_ms: Time of its passes until its actions were clean, those of other requests in them included.
    """

    under_way: Any
    given: np.ndarray | None
    num_frames: int
    encode_ms: float
    denoise_ms: float = 0.0

    @property
    def phase(self) -> Phase:
        """Return what the next pass is for."""
        return self._request.phase

    @property
    def passes_left(self) -> int:
        """Return how many passes are missing."""
        return self._request.passes_left

    @property
    def group(self) -> Hashable:
        """Return what jobs must have in common to share a pass."""
        return self._request.group

    @property
    def _request(self) -> UnderWay:
        request: UnderWay = self.under_way
        return request

    def after(self, under_way: Any, took_ms: float) -> EngineJob:
        """Return the job after a pass."""
        acting = took_ms if self.phase is Phase.ACTIONS else 0.0
        return replace(self, under_way=under_way, denoise_ms=self.denoise_ms + acting)


AnyEngine = TypeVar("AnyEngine", bound="SteppedEngine[Any]")


class EnginePolicy(Generic[AnyEngine]):
    """The model in memory, a `SteppedPolicy`. A reply depends only on its request."""

    def __init__(self, spec: PolicySpec, engine: AnyEngine) -> None:
        self.spec, self.engine, self.width = spec, engine, engine.width

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Do nothing: the policy keeps no memory between requests."""

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one reply for each request; each is computed by itself, so that none changes another's actions."""
        return [self._infer_one(request) for request in requests]

    def prepare(self, request: PolicyRequest) -> EngineJob:
        """Return the job of a request before its first pass."""
        from xwam.serving.stepped import use_set_threads

        use_set_threads()
        started = time.perf_counter()
        under_way = self.begin(request)
        return EngineJob(
            under_way=under_way,
            given=request.given_actions,
            num_frames=request.num_predicted_frames,
            encode_ms=(time.perf_counter() - started) * 1e3,
        )

    def begin(self, request: PolicyRequest) -> Any:
        """Return the engine's request before its first pass."""
        joining = {} if request.committed is None else {"committed": request.committed}
        return self.engine.begin(  # type: ignore[attr-defined]
            Seen.of(request.observation),
            seed=request.noise_seed,
            given_actions=request.given_actions,
            predict=request.num_predicted_frames > 0,
            **joining,
        )

    def step(self, jobs: Sequence[EngineJob]) -> list[EngineJob]:
        """Return the jobs after one pass that they share, in order."""
        started = time.perf_counter()
        stepped = self.engine.step([job.under_way for job in jobs])
        took_ms = (time.perf_counter() - started) * 1e3
        return [job.after(under_way, took_ms) for job, under_way in zip(jobs, stepped, strict=True)]

    def actions(self, job: EngineJob) -> PolicyReply:
        """Return the reply of a job whose actions are clean, without its prediction."""
        return PolicyReply(
            actions=self.engine.actions(job.under_way) if job.given is None else job.given,
            timings_ms={"encode": job.encode_ms, "denoise_actions": job.denoise_ms},
        )

    def finish(self, job: EngineJob) -> Prediction:
        """Return the prediction of a job that is done; passes of other jobs may run meanwhile."""
        from xwam.serving.stepped import decoding

        with decoding(self.engine.network.device):
            return self.engine.prediction(job.under_way, job.num_frames)

    def _infer_one(self, request: PolicyRequest) -> PolicyReply:
        job = self._passed(self.prepare(request), while_in=(Phase.ACTIONS,))
        reply = self.actions(job)
        return replace(reply, prediction=partial(self._predict, job)) if job.num_frames else reply

    def _predict(self, job: EngineJob) -> Prediction:
        return self.finish(self._passed(job, while_in=(Phase.ACTIONS, Phase.VIDEO)))

    def _passed(self, job: EngineJob, *, while_in: Sequence[Phase]) -> EngineJob:
        """Return a job after all passes of these phases, which it has alone."""
        while job.phase in while_in:
            (job,) = self.step([job])
        return job


class PredictingPolicy(EnginePolicy[AnyEngine]):
    """A policy whose predictions go through a codec, which bounds how good they can be."""

    def round_trip(self, future: Prediction) -> Prediction:
        """Return a future after the round trip through the model's codec: the ceiling of its predictions.

        Camera motion is unknown here. Where a model builds on measured depth, moving views keep the codec's, and a
        prediction's may be better.
        """
        return self.engine.round_trip(future)
