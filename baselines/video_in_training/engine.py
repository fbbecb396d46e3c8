"""One request of a model that acts without imagining.

In: a `Seen` (images, state, prompt) and a seed. Out: actions.
Read next: `acting.py` for the passes, `xwam/serving/engine.py` for everything else.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from baselines.joint_attention.network import TwoStreamNetwork
from baselines.video_in_training.acting import ActingNetwork, read_present
from xwam.flow import sampler
from xwam.flow.unipc import UniPCState
from xwam.serving.engine import Engine, Request


class ActingEngine(Engine):
    """An engine whose requests end with their actions: the future video has no tokens."""

    @torch.inference_mode()
    def act(self, request: Request) -> tuple[np.ndarray, Request]:
        """Return the clean actions, K,14 float32 in the bench's layout, and the request as it stands then.

        The noise is that of a request with video, so the actions are those of the whole masked pass.
        """
        network, state = self.network, request.state
        assert isinstance(network, TwoStreamNetwork), "the families that use this engine build it"
        present = read_present(network, state.seen_latent_BCVHW, state.text)
        alone = replace(state, video=UniPCState(x=state.video.x[:, :, :1]))
        clean = sampler.run(ActingNetwork(network, present), alone, stop_after_actions=True, depth=False)
        request = replace(request, state=clean)
        return self.actions(request), request
