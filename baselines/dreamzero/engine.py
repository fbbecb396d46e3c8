"""One request through DreamZero: the window of its episode, one block denoised, commands, the frames on demand.

In: a window, the present state, a seed. Out: commands of the bench; a prediction of RGB images.
Read next: `window.py` for observed frames, `sampler.py` for the passes, `memory.py` for episodes, `policy.py`.

Letters: B batch (1 here), C channels, T latent frames, F future frames, V views, H W pixels, K actions.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from baselines.dreamzero.network import DreamZeroNetwork
from baselines.dreamzero.sampler import BlockSchedule, BlockState, advance, begin
from baselines.dreamzero.window import Window, Windows
from evalkit.contracts.stepped import Phase
from evalkit.contracts.types import Prediction
from xwam.checkpoints.bundle import Bundle
from xwam.codecs.codec import decode_views, encode_views
from xwam.flow.noise import draw_noise
from xwam.serving.images import BenchImages
from xwam.serving.numbers import RobotNumbers
from xwam.serving.prompts import PROMPT_BYTES, PromptStore
from xwam.serving.stepped import SteppedEngine
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
        predict: Whether a prediction is wanted; else it is done when its actions are clean.
        runs_to_act: Passes of the network until its actions were clean.
    """

    state: BlockState
    window: Window
    proprio: np.ndarray
    predict: bool = True
    runs_to_act: int = 0

    @property
    def phase(self) -> Phase:
        """Return what the next pass is for; given actions are clean from the start."""
        if not self.state.actions_clean:
            return Phase.ACTIONS
        return Phase.VIDEO if self.predict and not self.state.done else Phase.DONE

    @property
    def passes_left(self) -> int:
        """Return how many passes are missing, if none is skipped by its velocities."""
        if self.phase is Phase.DONE:
            return 0
        return self.state.passes_to_video if self.predict else self.state.passes_to_actions

    @property
    def group(self) -> Hashable:
        """Return what requests must have in common to share a pass."""
        return self.state.group

    def after(self, state: BlockState) -> BlockRequest:
        """Return the request with its next state."""
        runs = self.runs_to_act if self.state.actions_clean else state.history.num_runs
        return replace(self, state=state, runs_to_act=runs)


class DreamZeroEngine(SteppedEngine[BlockRequest]):
    """A model with the interface of its bench; stateless except for its stores of prompts and caches.

    Args:
        bundle: Configuration, network, codec and text encoder.
        schedule: Passes and guidance.
        cache_bytes: Largest memory of cached keys and values of all episodes.
        prompt_bytes: Largest memory of stored prompts.
        width: Rows of every pass.
    """

    def __init__(
        self,
        bundle: Bundle,
        schedule: BlockSchedule,
        *,
        cache_bytes: int = CACHE_BYTES,
        prompt_bytes: int = PROMPT_BYTES,
        width: int = 1,
    ) -> None:
        super().__init__(width=width)
        self.bundle, self.schedule, self.model = bundle, schedule, bundle.model
        self.network: DreamZeroNetwork = bundle.network  # type: ignore[assignment]
        self.numbers, self.images = RobotNumbers(self.model), BenchImages(self.model)
        prompts = PromptStore(bundle, max_bytes=prompt_bytes, in_buckets=width > 1)
        self.windows = Windows(bundle, prompts, max_bytes=cache_bytes)

    @torch.inference_mode()
    def begin(
        self,
        window: Window,
        proprio: np.ndarray,
        *,
        seed: int,
        given_actions: np.ndarray | None = None,
        predict: bool = True,
    ) -> BlockRequest:
        """Return a request before its first pass.

        Args:
            window: The observed frames; the present ones are the last.
            proprio: The present state, 16 numbers.
            seed: Fixes all of its noise.
            given_actions: K,14 in the bench's layout, whose outcome is to be imagined; None to let the model act.
            predict: Whether a prediction is wanted.
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
        return BlockRequest(state=state, window=window, proprio=proprio, predict=predict)

    def shared_pass(self, requests: Sequence[BlockRequest]) -> list[BlockRequest]:
        """Return the requests after one pass, and after the steps behind it whose passes are skipped."""
        states = advance(self.network, [request.state for request in requests])
        return [request.after(state) for request, state in zip(requests, states, strict=True)]

    def actions(self, request: BlockRequest) -> np.ndarray:
        """Return the clean actions of a request in the bench's layout."""
        return self.numbers.commands(request.state.action.x[0], request.proprio)

    @torch.inference_mode()
    def prediction(self, request: BlockRequest, num_frames: int | None = None) -> Prediction:
        """Return the first predicted images of a request that is done; those of the block if no number is given."""
        window, video = request.window, request.state.video.x
        num_frames = self.network.config.frames_per_block if num_frames is None else num_frames
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
