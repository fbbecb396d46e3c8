"""One request of a model that acts without imagining.

In: a `Seen` (images, state, prompt) and a seed. Out: actions.
Read next: `acting.py` for the passes, `xwam/serving/engine.py` for everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from baselines.joint_attention.network import TwoStreamNetwork
from baselines.video_in_training.acting import ActingNetwork, Present, present_of_all, read_present
from xwam.flow import sampler
from xwam.flow.unipc import UniPCState
from xwam.serving.engine import Engine, Request
from xwam.serving.seen import Seen


@dataclass(frozen=True, kw_only=True, eq=False)
class ActingRequest(Request):
    """A request under way.

    Attributes:
        present: Keys and values of the present frame.
    """

    present: Present


class ActingEngine(Engine):
    """An engine whose requests end with their actions: the future video has no tokens."""

    def begin(self, seen: Seen, **how: Any) -> ActingRequest:
        """Return a request before its first pass, see `Engine.begin`; the present frame is read.

        The noise is that of a request with video, so the actions are those of the whole masked pass.
        """
        network, request = self.network, super().begin(seen, **how)
        assert isinstance(network, TwoStreamNetwork), "the families that use this engine build it"
        state = request.state
        with torch.inference_mode():
            present = read_present(network, state.seen_latent_BCVHW, state.text)
        alone = replace(state, video=UniPCState(x=state.video.x[:, :, :1]))
        return ActingRequest(
            state=alone, context=request.context, start=request.start, predict=False, later=None, present=present
        )

    def shared_pass(self, requests: Sequence[Request]) -> list[Request]:
        """Return the requests after one pass, each against its own present frame."""
        present = present_of_all([request.present for request in requests if isinstance(request, ActingRequest)])
        acting = ActingNetwork(self.network, present)
        states = sampler.advance(acting, [request.state for request in requests])
        return [request.after(state) for request, state in zip(requests, states, strict=True)]
