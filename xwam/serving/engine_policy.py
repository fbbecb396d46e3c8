"""A model in memory as a policy: each request goes through the engine of its family by itself.

In: requests of evalkit, an engine. Out: replies of evalkit.
Read next: `plugin.py`, which loads the model; `engine.py` for X-WAM's engine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest, Prediction
from xwam.serving.seen import Seen


class RequestEngine(Protocol):
    """What the engines of all families do with a request."""

    @property
    def begin(self) -> Any:
        """Return the function that starts a request; its arguments differ between families."""
        ...

    def act(self, request: Any) -> tuple[np.ndarray, Any]:
        """Return the clean actions, K,14 float32 in the bench's layout, and the request as it stands then."""
        ...

    def imagine(self, request: Any, num_frames: int) -> Prediction:
        """Return the prediction of the first future frames."""
        ...

    def round_trip(self, future: Prediction) -> Prediction:
        """Return a future after encoding and decoding."""
        ...


AnyEngine = TypeVar("AnyEngine", bound=RequestEngine)


class EnginePolicy(Generic[AnyEngine]):
    """The model in memory. A reply depends only on its request."""

    def __init__(self, spec: PolicySpec, engine: AnyEngine) -> None:
        self.spec, self.engine = spec, engine

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Do nothing: the policy keeps no memory between requests."""

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one reply for each request; each is computed by itself, so that none changes another's actions."""
        return [self._infer_one(request) for request in requests]

    def _infer_one(self, request: PolicyRequest) -> PolicyReply:
        started = time.perf_counter()
        given, num_frames = request.given_actions, request.num_predicted_frames
        joining = {} if request.committed is None else {"committed": request.committed}
        seen = Seen.of(request.observation)
        under_way = self.engine.begin(seen, seed=request.noise_seed, given_actions=given, **joining)
        encoded = time.perf_counter()
        actions, under_way = self.engine.act(under_way)
        done = time.perf_counter()
        return PolicyReply(
            actions=actions if given is None else given,
            timings_ms={"encode": (encoded - started) * 1e3, "denoise_actions": (done - encoded) * 1e3},
            prediction=partial(self.engine.imagine, under_way, num_frames) if num_frames else None,
        )


class PredictingPolicy(EnginePolicy[AnyEngine]):
    """A policy whose predictions go through a codec, which bounds how good they can be."""

    def round_trip(self, future: Prediction) -> Prediction:
        """Return a future after the round trip through the model's codec: the ceiling of its predictions.

        Camera motion is unknown here. Where a model builds on measured depth, moving views keep the codec's, and a
        prediction's may be better.
        """
        return self.engine.round_trip(future)
