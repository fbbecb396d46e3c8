"""One request through DreamZero: the window of its episode, one block denoised, commands, the frames on demand.

In: a window, the present state, a seed. Out: commands of the bench; a prediction of RGB images.
Read next: `window.py` for observed frames, `sampler.py` for the passes, `memory.py` for episodes, `policy.py`.

Letters: B batch (1 here), C channels, T latent frames, F future frames, V views, H W pixels, K actions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from baselines.dreamzero.network import DreamZeroNetwork
from baselines.dreamzero.sampler import BlockSchedule, BlockState, begin, run
from baselines.dreamzero.window import Window, Windows
from evalkit.contracts.types import Prediction
from xwam.checkpoints.bundle import Bundle
from xwam.codecs.codec import decode_views, encode_views
from xwam.flow.noise import draw_noise
from xwam.serving.images import BenchImages
from xwam.serving.numbers import RobotNumbers
from xwam.serving.prompts import PROMPT_BYTES, PromptStore
from xwam.text.memory import GIB

CACHE_BYTES = 4 * GIB
"""Default bound of all caches: two running episodes at 5B with guidance, of 1.54 GiB each (docs/baselines.md)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockRequest:
    """A request under way.

    Attributes:
        state: The state of its denoising.
        window: The observed frames.
        proprio: The present state, as the bench gives it.
    """

    state: BlockState
    window: Window
    proprio: np.ndarray


class DreamZeroEngine:
    """A model with the interface of its bench; stateless except for its stores of prompts and caches.

    Args:
        bundle: Configuration, network, codec and text encoder.
        schedule: Passes and guidance.
        cache_bytes: Largest memory of cached keys and values of all episodes.
        prompt_bytes: Largest memory of stored prompts.
    """

    def __init__(
        self,
        bundle: Bundle,
        schedule: BlockSchedule,
        *,
        cache_bytes: int = CACHE_BYTES,
        prompt_bytes: int = PROMPT_BYTES,
    ) -> None:
        self.bundle, self.schedule, self.model = bundle, schedule, bundle.model
        self.network: DreamZeroNetwork = bundle.network  # type: ignore[assignment]
        self.numbers, self.images = RobotNumbers(self.model), BenchImages(self.model)
        self.windows = Windows(bundle, PromptStore(bundle, max_bytes=prompt_bytes), max_bytes=cache_bytes)

    @torch.inference_mode()
    def begin(
        self, window: Window, proprio: np.ndarray, *, seed: int, given_actions: np.ndarray | None = None
    ) -> BlockRequest:
        """Return a request before its first pass.

        Args:
            window: The observed frames; the present ones are the last.
            proprio: The present state, 16 numbers.
            seed: Fixes all of its noise.
            given_actions: K,14 in the bench's layout, whose outcome is to be imagined; None to let the model act.
        """
        config, device = self.network.config, self.network.device
        channels, _, views, rows, cols = self.model.latent_shape
        video, action = draw_noise(
            seed,
            (1, channels, config.latents_per_block, views, rows, cols),
            (1, config.actions_per_block, config.action_dim),
        )
        given = None if given_actions is None else self.numbers.known_actions(given_actions, proprio).to(device)
        state = begin(
            self.schedule,
            noise_video_BCTVHW=video.to(device),
            noise_action_BKA=action.to(device),
            proprio_BNS=self.numbers.state(proprio)[:, None].to(device),
            seen=self.windows.context(window),
            blind=self.windows.context(window, "") if self.schedule.guidance else None,
            given_action_BKA=given,
        )
        return BlockRequest(state=state, window=window, proprio=proprio)

    @torch.inference_mode()
    def act(self, request: BlockRequest) -> tuple[np.ndarray, BlockRequest]:
        """Return the clean actions, K,14 float32 in the bench's layout, and the request as it stands then."""
        state = run(self.network, request.state, stop_after_actions=True)
        return self.numbers.commands(state.action.x[0], request.proprio), replace(request, state=state)

    @torch.inference_mode()
    def imagine(self, request: BlockRequest, num_frames: int) -> Prediction:
        """Return the first predicted images of the block; the remaining passes run now."""
        window, video = request.window, run(self.network, request.state).video.x
        observed = window.latents_BCTVHW
        if self.model.codec.builds_on_first_frame:  # later frames do not depend on one another
            observed = observed[:, :, :1]
        latent_BCTVHW = torch.cat([observed, video], dim=2).cpu()
        frames = decode_views(self.bundle.codec, latent_BCTVHW, window.first_BCVHW)
        first = frames.shape[2] - self.network.config.frames_per_block
        rgb = self.images.rgb_to_env(frames[:, :, first : first + num_frames])
        return Prediction(rgb=rgb, depth=None, proprio=None)

    @torch.inference_mode()
    def round_trip(self, future: Prediction) -> Prediction:
        """Return a future after encoding and decoding, its first frame standing for the present: the codec alone."""
        count = len(future.rgb)
        frames = [0, *range(count), *[count - 1] * (-count % self.network.config.frames_per_block)]
        video = torch.stack([self.images.rgb_to_model(future.rgb[frame]) for frame in frames], dim=2)
        latent = encode_views(self.bundle.codec, video)
        decoded = decode_views(self.bundle.codec, latent, video[:, :, 0])[:, :, 1 : 1 + count]
        return Prediction(rgb=self.images.rgb_to_env(decoded), depth=None, proprio=None)
