"""From clean latents to the prediction that a policy returns: the seam for everything that is not the network.

In: the present, then clean latents and states. Out: a `Prediction` in the bench's pixels and frames.
Read next: `engine.py`, which calls it; `xwam/nano/finisher.py`, the other implementation.

Letters: B batch (1 here), C channels, T latent frames, F future frames, V views, H W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from evalkit.contracts.types import Prediction
from xwam.codecs.codec import Codec, decode_views, encode_views
from xwam.config import LATENT_STRIDES, ModelConfig
from xwam.flow.sampler import Latents
from xwam.robots.actions import tidy_quaternions
from xwam.robots.interfaces import INTERFACES
from xwam.serving.images import BenchImages
from xwam.serving.seen import Seen


class Finisher(Protocol):
    """Turns clean latents into a prediction; the context is its own and lives as long as the request.

    It states no provenance: a plan is made before weights are loaded, so `FinisherChoice` states it.
    """

    def prepare(self, seen: Seen, seen_BCVHW: Tensor) -> Any:
        """Return the context for `finish`, before the first pass of the network.

        Args:
            seen: The present.
            seen_BCVHW: Its RGB images as the model sees them, B,3,V,H,W in [-1, 1].
        """

    def finish(self, latents: Latents, states: np.ndarray, context: Any) -> Prediction:
        """Return the prediction.

        Args:
            latents: Clean latents; the first latent frame is the present.
            states: F,16, predicted states in the model's frames; the prediction has F frames. The latents may stand for
                more, because one latent frame stands for four.
            context: From `prepare`.
        """


class PlainFinisher:
    """Decodes with the codec and does nothing else."""

    def __init__(self, model: ModelConfig, codec: Codec) -> None:
        self.model, self.codec, self.images = model, codec, BenchImages(model)

    def prepare(self, seen: Seen, seen_BCVHW: Tensor) -> Tensor:
        """Return the present RGB images: a codec may decode the future as their change."""
        return seen_BCVHW

    def finish(self, latents: Latents, states: np.ndarray, context: Tensor) -> Prediction:
        """Return what the codec decodes."""
        return self.decode(latents, states, seen_BCVHW=context)

    def decode(
        self, latents: Latents, states: np.ndarray, *, seen_BCVHW: Tensor, seen_depth_BCVHW: Tensor | None = None
    ) -> Prediction:
        """Return the decoded future frames in the bench's pixels, and the states in its frames.

        Args:
            latents: See `Finisher.finish`.
            states: See `Finisher.finish`.
            seen_BCVHW: The present RGB images in [-1, 1].
            seen_depth_BCVHW: The present depth images as a depth video; None for the codec's own.
        """
        video_BCFVHW = decode_views(self.codec, latents.video_BCTVHW.cpu(), seen_BCVHW)[:, :, 1 : 1 + len(states)]
        return Prediction(
            rgb=self.images.rgb_to_env(video_BCFVHW),
            depth=self.depth_m(latents, len(states), seen_depth_BCVHW),
            proprio=self.proprio(states),
        )

    def depth_m(self, latents: Latents, num_frames: int, seen_depth_BCVHW: Tensor | None = None) -> np.ndarray | None:
        """Return the decoded depth images, F,V,H,W metres; None where no depth is predicted."""
        if latents.depth_BCTVHW is None:
            return None
        depth_BCTVHW = decode_views(self.codec, latents.depth_BCTVHW.cpu(), seen_depth_BCVHW)
        return self.images.depth_to_env_m(depth_BCTVHW[:, :, 1 : 1 + num_frames])

    def proprio(self, states: np.ndarray) -> np.ndarray:
        """Return states of the model, F,16, in the bench's frames, float32."""
        axes = INTERFACES[self.model.bench].axes
        return axes.sim_from_model(states, self.model.arms).astype(np.float32)


def round_trip(future: Prediction, model: ModelConfig, codec: Codec, finisher: Finisher) -> Prediction:
    """Return a future after encoding and decoding: the best that a network could give.

    The first frame stands for the present, which the codec sees. Cameras are unknown, and states stay as they are.

    Args:
        future: RGB images in the bench's pixels, perhaps depth and states.
        model: Sizes, depth map and arms.
        codec: The codec.
        finisher: Turns latents into a prediction.
    """
    images, count = BenchImages(model), len(future.rgb)
    frames = [0, *range(count), *[count - 1] * (-count % LATENT_STRIDES[0])]
    video = torch.stack([images.rgb_to_model(future.rgb[frame]) for frame in frames], dim=2)
    depth, first_depth = None, None
    if future.depth is not None:
        depth = encode_views(codec, images.depth_to_model(future.depth[frames]))
        first_depth = future.depth[0]
    still = tidy_quaternions(np.zeros((count, 16)), model.arms)
    seen = Seen(future.rgb[0], still[0], "", depth_vhw_m=first_depth)
    context = finisher.prepare(seen, video[:, :, 0])
    decoded = finisher.finish(Latents(encode_views(codec, video), depth), still, context)
    return replace(decoded, proprio=future.proprio)
