"""Makes the batches of a training: clips and noise of each step, which depend on seed and step only.

In: a data set, codec, text encoder, recipe. Out: batches of latents and their random draws, from any step on.
Read next: `objective.py`, which computes the loss of a batch.

There is no state to restore after a restart: the clip at position p of step n and its noise are functions of
(seed, n, p), for any number of devices.

Letters: B batch, C channels, F frames, V views, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from evalkit.contracts.requests import seed_of
from evalkit.dataset.layout import Broken, BrokenEpisode
from xwam.checkpoints.bundle import Bundle
from xwam.codecs.codec import encode_views
from xwam.config import ModelConfig
from xwam.families import family_of
from xwam.flow.losses import Batch, Noise
from xwam.flow.noise import draw_levels
from xwam.text.memory import GIB, Recent
from xwam.text.tokens import TextTokens
from xwam.training.clips import ClipDataset, Sample
from xwam.training.latent_cache import EncodedSample, LatentClips
from xwam.training.recipes import Recipe

PROMPT_BYTES = GIB
"""Memory for the text of encoded prompts, which is 8 MB or less for each of the released size."""

MAX_BROKEN_IN_A_ROW = 100
"""Largest number of broken clips in a row before reading stops with an error."""


@runtime_checkable
class DrawsLevels(Protocol):
    """A family whose noise levels are not those of `xwam.flow.noise.draw_levels`."""

    def draw_levels(self, model: ModelConfig, recipe: Recipe, generator: torch.Generator) -> Any:
        """Return the levels of one sample: a named tuple of tensors whose first axis has length 1."""
        ...


class Slot(NamedTuple):
    """One position of the batch of one step, and its clip."""

    step: int
    position: int
    clip_idx: int


class ClipGroup(NamedTuple):
    """Clips before encoding, their slots, and the broken episodes that were skipped."""

    samples: list[Sample | EncodedSample]
    slots: list[Slot]
    broken: list[Broken]


@dataclass(frozen=True, kw_only=True, eq=False)
class Draws:
    """The random draws of a batch.

    Attributes:
        noise: Standard normal noise.
        levels: Noise levels: `NoiseLevels`, or those of a family that draws its own.
        text: Encoded prompts; the empty prompt, encoded like any other, where the prompt was dropped.
        num_clean: First actions of each sample that are clean, as committed ones; empty for none.
    """

    noise: Noise
    levels: Any
    text: TextTokens
    num_clean: tuple[int, ...] = ()


def clip_at(seed: int, num_clips: int, position: int) -> int:
    """Return the clip at a position of the endless sequence of shuffled passes over all clips.

    Example:
        >>> sorted(clip_at(0, 5, position) for position in range(10, 15))
        [0, 1, 2, 3, 4]
    """
    epoch, within = divmod(position, num_clips)
    return int(_order(seed, num_clips, epoch)[within])


@lru_cache(maxsize=2)
def _order(seed: int, num_clips: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_clips)


def slots(recipe: Recipe, num_clips: int, step: int, *, rank: int = 0, world: int = 1) -> list[Slot]:
    """Return the slots of one device in a step.

    Raises:
        ValueError: If the batch does not divide among the devices.
    """
    if recipe.batch_size % (recipe.micro_batch * world):
        raise ValueError(f"{world} devices of {recipe.micro_batch} clips cannot share a batch of {recipe.batch_size}.")
    share = recipe.batch_size // world
    positions = range(rank * share, (rank + 1) * share)
    first = step * recipe.batch_size
    return [Slot(step, position, clip_at(recipe.seed, num_clips, first + position)) for position in positions]


def read(
    clips: ClipDataset | LatentClips, recipe: Recipe, *, first_step: int, num_steps: int, rank: int = 0, world: int = 1
) -> Iterator[ClipGroup]:
    """Yield the clips of each step from `first_step` to `num_steps`; the recipe's workers read ahead."""
    loader: DataLoader[ClipGroup] = DataLoader(
        _SlotReader(clips, recipe.seed),
        batch_sampler=_Steps(recipe, len(clips), first_step, num_steps, rank, world),  # type: ignore[arg-type]
        num_workers=recipe.workers,
        collate_fn=_merged,
    )
    yield from loader


class _Steps:
    """The slots of the remaining steps, as the batch sampler of a loader."""

    def __init__(self, recipe: Recipe, num_clips: int, first: int, stop: int, rank: int, world: int) -> None:
        self._recipe, self._num_clips, self._span, self._rank, self._world = (
            recipe,
            num_clips,
            (first, stop),
            rank,
            world,
        )

    def __iter__(self) -> Iterator[list[Slot]]:
        for step in range(*self._span):
            yield slots(self._recipe, self._num_clips, step, rank=self._rank, world=self._world)

    def __len__(self) -> int:
        return self._span[1] - self._span[0]


class _SlotReader(Dataset[ClipGroup]):
    """Reads the clip of a slot; a broken clip is named and the next clip takes its slot."""

    def __init__(self, clips: ClipDataset | LatentClips, seed: int) -> None:
        self._clips, self._seed = clips, seed

    def __getitem__(self, slot: Slot) -> ClipGroup:  # type: ignore[override]
        rng = np.random.default_rng([self._seed, slot.step, slot.position])
        broken: list[Broken] = []
        for offset in range(MAX_BROKEN_IN_A_ROW):
            index = (slot.clip_idx + offset) % len(self._clips)
            try:
                sample = self._clips.sample(index, rng)
                return ClipGroup([sample], [slot], broken)
            except BrokenEpisode as error:
                broken.append(Broken(self._clips.where(index)[0], str(error)))
        raise BrokenEpisode(f"{MAX_BROKEN_IN_A_ROW} clips in a row are broken; the last reason: {broken[-1].reason}")


def _merged(groups: Sequence[ClipGroup]) -> ClipGroup:
    return ClipGroup(
        samples=[sample for group in groups for sample in group.samples],
        slots=[slot for group in groups for slot in group.slots],
        broken=[reason for group in groups for reason in group.broken],
    )


# ---- latents and draws


class Encoder:
    """Encodes clips as batches with a model's codec and text encoder; each prompt is encoded once.

    Args:
        bundle: The model.
        recipe: Settings of the random draws.
        device: Device of the batches.
    """

    def __init__(self, bundle: Bundle, recipe: Recipe, device: torch.device) -> None:
        self._bundle, self._recipe, self._device = bundle, recipe, device
        self._prompts: Recent[TextTokens] = Recent(PROMPT_BYTES)
        vae = getattr(bundle.codec, "vae", None)
        if vae is not None:
            vae.to(device)

    @torch.no_grad()
    def batch(self, samples: Sequence[Sample | EncodedSample]) -> Batch:
        """Return clips as latents, each repeated for every noise draw."""
        draws = self._recipe.noise_draws

        def column(name: str) -> Tensor:
            return torch.stack([getattr(sample, name) for sample in samples]).to(self._device)

        def latents(name: str) -> Tensor:
            if self._bundle.model.blind:
                encoded = self._grey().expand(len(samples), -1, -1, -1, -1, -1)
            elif isinstance(samples[0], EncodedSample):
                encoded = column(f"{name}_CTVHW")
            else:
                encoded = encode_views(self._bundle.codec, column(f"{name}_CFVHW")).to(self._device)
            return encoded.repeat_interleave(draws, 0)

        video = latents("video")
        return Batch(
            video_BCTVHW=video,
            depth_BCTVHW=video[:, :0] if self._bundle.model.network.depth == "none" else latents("depth"),
            action_BKA=column("action_KA").repeat_interleave(draws, 0),
            proprio_BPS=column("proprio_PS").repeat_interleave(draws, 0),
            action_mask_BKA=column("action_mask_KA").repeat_interleave(draws, 0),
            executed_BKA=column("executed_KA").repeat_interleave(draws, 0),
            proprio_mask_BPS=column("proprio_mask_PS").repeat_interleave(draws, 0),
        )

    def _grey(self) -> Tensor:
        """Return the latents of a grey video, 1,C,T,V,H,W."""
        model = self._bundle.model
        grey = torch.zeros(1, 3, 1 + model.num_future_frames, len(model.views), *model.image_hw_px)
        return encode_views(self._bundle.codec, grey.to(self._device)).to(self._device)

    def draws(self, batch: Batch, samples: Sequence[Sample | EncodedSample], slots: Sequence[Slot]) -> Draws:
        """Return the random draws of a batch; the draws of each sample depend on its slot only."""
        recipe = self._recipe
        video = list(batch.video_BCTVHW.shape[1:])
        video[0] = self._bundle.model.network.state_channels
        shapes = (video, batch.action_BKA.shape[1:], batch.proprio_BPS.shape[1:])
        noise, levels, text, num_clean = [], [], [], list[int]()
        for sample, slot in zip(samples, slots, strict=True):
            for draw in range(recipe.noise_draws):
                seed = seed_of("train", recipe.seed, slot.step, slot.position, draw)
                generator = torch.Generator().manual_seed(seed)
                levels.append(self._levels(generator))
                dropped = torch.rand(1, generator=generator).item() < recipe.text_drop
                text.append(self.prompt("" if dropped else sample.instruction))
                if recipe.prefix_actions_max:
                    num_clean.append(int(torch.randint(recipe.prefix_actions_max + 1, (), generator=generator)))
                noise.append([torch.randn(list(shape), generator=generator) for shape in shapes])
        return Draws(
            noise=Noise(*(torch.stack(tensors).to(self._device) for tensors in zip(*noise, strict=True))),
            levels=type(levels[0])(*(torch.cat(tensors).to(self._device) for tensors in zip(*levels, strict=True))),
            text=TextTokens.cat(text).to(self._device),
            num_clean=tuple(num_clean),
        )

    def _levels(self, generator: torch.Generator) -> Any:
        """Return the noise levels of one sample, as the family draws them."""
        recipe, model = self._recipe, self._bundle.model
        family = family_of(model.family)
        if isinstance(family, DrawsLevels):
            return family.draw_levels(model, recipe, generator)
        return draw_levels(
            1,
            recipe.noise,
            clean_frac=recipe.clean_action_frac,
            start_frac=recipe.start_frac,
            generator=generator,
        )

    def prompt(self, text: str) -> TextTokens:
        """Return the text of a prompt."""
        return self._prompts.get(text, lambda: self._bundle.text_encoder.encode(text))
