"""The window of an episode: the observed frames since it began, as images, latents and cached keys and values.

In: RGB images of the bench. Out: `Window`s, which nothing changes, and their caches.
Read next: `engine.py`, which extends the window of an episode from request to request.

Observed frames take the place of predicted ones. The official code encodes four observed frames, each twice and the
first once more, and keeps the last two latents (wan_flow_matching_action_tf.py, commit ab790c1). Here a bench gives all
frames of a block, or a part of them that is repeated in the same way.

Letters: B batch (1 here), C channels, T latent frames, V views, H W pixels or latent cells, N images.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from baselines.dreamzero.config import DreamZeroConfig
from baselines.dreamzero.network import DreamZeroNetwork, FrameCache
from baselines.dreamzero.sampler import Context
from xwam.checkpoints.bundle import Bundle
from xwam.codecs.codec import encode_views
from xwam.serving.images import BenchImages
from xwam.serving.prompts import PromptStore
from xwam.text.memory import Recent


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """Observed frames; each window but the first is another one with the frames of a block in addition.

    Attributes:
        instruction: The prompt.
        first_BCVHW: The first images, as the model sees them.
        latent_BCTVHW: Latents of its last frames: the first frame, or those of a block.
        earlier: The window without its last frames; None if it is the first frame alone.
        key: Its name.
    """

    instruction: str
    first_BCVHW: Tensor
    latent_BCTVHW: Tensor
    earlier: Window | None = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def num_blocks(self) -> int:
        """Return the observed blocks, which is the index of the block to predict."""
        return 0 if self.earlier is None else 1 + self.earlier.num_blocks

    @property
    def latents_BCTVHW(self) -> Tensor:
        """Return the latents of all frames."""
        if self.earlier is None:
            return self.latent_BCTVHW
        return torch.cat([self.earlier.latents_BCTVHW, self.latent_BCTVHW], dim=2)


class Step(NamedTuple):
    """A window, and why it starts at this request; None if it goes on."""

    window: Window
    started_by: str | None


class Windows:
    """Makes windows from images, and caches from windows.

    Only the cache of the last window of an episode is kept: it holds the frames of the earlier ones.

    Args:
        bundle: The model.
        prompts: Prompts as the network reads them.
        max_bytes: Largest memory of all caches; a cache that does not fit is made again when it is needed, from the
            latents of its window and with the same values.
    """

    def __init__(self, bundle: Bundle, prompts: PromptStore, *, max_bytes: int) -> None:
        self._model, self._codec, self._prompts = bundle.model, bundle.codec, prompts
        self._network: DreamZeroNetwork = bundle.network  # type: ignore[assignment]
        self._config: DreamZeroConfig = self._network.config
        self._images = BenchImages(bundle.model)
        self._caches: Recent[FrameCache] = Recent(max_bytes)

    def after(self, window: Window | None, rgb_vhwc_u8: np.ndarray, past: np.ndarray | None, instruction: str) -> Step:
        """Return the window of a request, given that of the request before.

        Args:
            window: The window before; None for the first request.
            rgb_vhwc_u8: The present images.
            past: N,V,H,W,3, the images since the request before, the present ones last.
            instruction: The prompt.
        """
        reason = self._reason_to_start(window, 0 if past is None else len(past), instruction)
        if reason is not None:
            if window is not None:
                self._drop(window, window.instruction)
                self._drop(window, "")
            return Step(self.start(rgb_vhwc_u8, instruction), reason)
        assert window is not None
        assert past is not None
        return Step(self.extend(window, past), None)

    def _reason_to_start(self, window: Window | None, num_past: int, instruction: str) -> str | None:
        per_block = self._config.frames_per_block
        if window is None:
            return "first request"
        if instruction != window.instruction:
            return "new instruction"
        if num_past <= 1:
            return "no frames between requests"
        if window.num_blocks + 1 == self._config.window_blocks:  # its last block was the one predicted before
            return f"{self._config.window_blocks} blocks fill the window"
        if per_block % num_past:
            return f"{num_past} frames between requests are no block of {per_block}"
        return None

    def start(self, rgb_vhwc_u8: np.ndarray, instruction: str) -> Window:
        """Return the window that begins with these images."""
        first_BCVHW = self._images.rgb_to_model(rgb_vhwc_u8)
        latent = encode_views(self._codec, first_BCVHW[:, :, None])
        return Window(instruction=instruction, first_BCVHW=first_BCVHW, latent_BCTVHW=self._on_device(latent))

    def extend(self, window: Window, past_nvhwc_u8: np.ndarray) -> Window:
        """Return the window with observed images of a block in addition; fewer images are repeated."""
        seen = [self._images.rgb_to_model(rgb) for rgb in past_nvhwc_u8]
        repeats = self._config.frames_per_block // len(seen)
        frames = [frame for frame in seen for _ in range(repeats)]
        head = window.first_BCVHW if self._model.codec.builds_on_first_frame else frames[0]
        latent = encode_views(self._codec, torch.stack([head, *frames], dim=2))[:, :, 1:]
        return Window(
            instruction=window.instruction,
            first_BCVHW=window.first_BCVHW,
            latent_BCTVHW=self._on_device(latent),
            earlier=window,
        )

    def context(self, window: Window, prompt: str | None = None) -> Context:
        """Return what a pass reads: the window's frames under its own prompt, or under another one."""
        prompt = window.instruction if prompt is None else prompt
        return Context(self._cache(window, prompt), self._prompts.read(prompt))

    def _cache(self, window: Window, prompt: str) -> FrameCache:
        def make() -> FrameCache:
            earlier = None if window.earlier is None else self._cache(window.earlier, prompt)
            return self._network.remember(window.latent_BCTVHW, earlier, self._prompts.read(prompt))

        cache = self._caches.get(_name(window, prompt), make)
        if window.earlier is not None:
            self._drop(window.earlier, prompt)
        return cache

    def _drop(self, window: Window, prompt: str) -> None:
        self._caches.drop(_name(window, prompt))

    def _on_device(self, latent_BCTVHW: Tensor) -> Tensor:
        return latent_BCTVHW.to(self._network.device)


def _name(window: Window, prompt: str) -> str:
    """Return the name of the cache of a window under a prompt."""
    return f"{window.key}/{prompt}"
