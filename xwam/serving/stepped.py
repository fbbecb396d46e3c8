"""Requests that advance by passes of a fixed number of rows: what the engines of all families have in common.

In: requests under way. Out: the same requests after a pass that they share.
Read next: `engine_policy.py`, which makes a policy of an engine; `engine.py` for X-WAM's.

A pass has `width` rows whatever it is asked for, because kernels choose other blockings for other numbers of rows, and
the last bits of a result with them. Rows without a request repeat the first one, and are thrown away.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from evalkit.contracts.stepped import Phase
from evalkit.contracts.types import Prediction


class UnderWay(Protocol):
    """A request of an engine, as `evalkit.contracts.stepped.Job` describes it."""

    @property
    def phase(self) -> Phase:
        """Return what its next pass is for."""

    @property
    def passes_left(self) -> int:
        """Return how many passes are missing, at most."""

    @property
    def group(self) -> Hashable:
        """Return what requests must have in common to share a pass."""


AnyRequest = TypeVar("AnyRequest", bound=UnderWay)


def use_set_threads() -> None:
    """Make torch's number of threads hold in this thread too.

    In a thread that torch has not asked for it, MKL and oneDNN use all cores, whatever `torch.set_num_threads` has set.
    """
    torch.get_num_threads()


@contextmanager
def decoding(device: torch.device) -> Iterator[None]:
    """Run the `with` block so that it holds up no pass: on CUDA in a stream of its own, which is done at the end."""
    use_set_threads()
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        stream.synchronize()  # what the block reads may be freed as soon as it ends


class SteppedEngine(ABC, Generic[AnyRequest]):
    """Base of the engines; a subclass implements `shared_pass`, `actions`, `prediction` and `round_trip`.

    Args:
        width: Rows of every pass.

    Attributes:
        network: The weights, set by the subclass.
    """

    network: Any

    def __init__(self, *, width: int = 1) -> None:
        self.width = width

    @abstractmethod
    def shared_pass(self, requests: Sequence[AnyRequest]) -> list[AnyRequest]:
        """Return the requests after one pass with a row for each of them."""

    @abstractmethod
    def actions(self, request: AnyRequest) -> np.ndarray:
        """Return the clean actions of a request, K,14 float32 in the bench's layout."""

    @abstractmethod
    def prediction(self, request: AnyRequest, num_frames: int | None = None) -> Prediction:
        """Return the first future frames of a request that is done; all if no number is given."""

    @abstractmethod
    def round_trip(self, future: Prediction) -> Prediction:
        """Return a future after encoding and decoding: the best that the network could give."""

    @torch.inference_mode()
    def step(self, requests: Sequence[AnyRequest]) -> list[AnyRequest]:
        """Return the requests after one pass that they share.

        Args:
            requests: 1 to `width` requests of one group, none of them done.

        Raises:
            ValueError: If they cannot share a pass.
        """
        _check(requests, self.width)
        filled = [*requests, *[requests[0]] * (self.width - len(requests))]
        stepped = self.shared_pass(filled)[: len(requests)]
        if self.network.device.type == "cuda":  # the caller times passes, and decides then who joins the next one
            torch.cuda.current_stream(self.network.device).synchronize()  # not the decoder's
        return stepped

    def act(self, request: AnyRequest) -> tuple[np.ndarray, AnyRequest]:
        """Return the clean actions, K,14 float32 in the bench's layout, and the request as it stands then."""
        while request.phase is Phase.ACTIONS:
            (request,) = self.step([request])
        return self.actions(request), request

    def imagine(self, request: AnyRequest, num_frames: int | None = None) -> Prediction:
        """Return the first future frames; the remaining passes run now."""
        while request.phase is not Phase.DONE:
            (request,) = self.step([request])
        return self.prediction(request, num_frames)


def _check(requests: Sequence[UnderWay], width: int) -> None:
    """Raise ValueError for requests that cannot share a pass."""
    if not 1 <= len(requests) <= width:
        raise ValueError(f"A pass of {width} rows takes 1 to {width} requests, got {len(requests)}.")
    done = [index for index, request in enumerate(requests) if request.phase is Phase.DONE]
    if done:
        raise ValueError(f"Request {done[0]} of {len(requests)} is done and needs no pass; leave it out.")
    groups = {request.group for request in requests}
    if len(groups) > 1:
        raise ValueError(f"Requests of different groups cannot share a pass, got {len(groups)} groups; see `group`.")
