"""The tokens of DreamZero: their order, their positions, and which of them each one reads.

In: numbers of frames, rows and columns. Out: a `Layout`, rotations of its tokens, its mask.
Read next: `attention.py`, which applies the mask; `network.py`.

Letters: L tokens, P pairs of a head. Block -1 is the first frame, which every later block may read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from baselines.dreamzero.config import DreamZeroConfig, StateReads
from xwam.network.rope import ROPE_THETA, Rope, rope_axes

CLEAN, NOISY, ACTION, STATE = range(4)
"""Kinds of tokens."""

FIRST_FRAME = -1
"""Block of the first frame."""


class Tokens(NamedTuple):
    """Kind and block of every token, L int64 each."""

    kind_L: Tensor
    block_L: Tensor


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The tokens of one pass, in the order clean frames, noisy frames, actions, states.

    Attributes:
        clean_frames: Latent frames at t = 0: absolute indices.
        noisy_frames: Latent frames under noise: absolute indices.
        blocks: Blocks whose actions and states follow.
        rows: Token rows of a frame.
        cols: Token columns of a frame.
        latents_per_block: Latent frames of a block.
        actions_per_block: Actions of a block.
    """

    clean_frames: range
    noisy_frames: range
    blocks: range
    rows: int
    cols: int
    latents_per_block: int
    actions_per_block: int

    @property
    def tokens_per_frame(self) -> int:
        """Return the tokens of a latent frame."""
        return self.rows * self.cols

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Return the numbers of tokens of each kind, in order."""
        frames = [len(kind) * self.tokens_per_frame for kind in (self.clean_frames, self.noisy_frames)]
        return frames[0], frames[1], len(self.blocks) * self.actions_per_block, len(self.blocks)

    @property
    def num_tokens(self) -> int:
        """Return all tokens."""
        return sum(self.sizes)

    def block_of(self, frame: int) -> int:
        """Return the block of a latent frame.

        Example:
            >>> layout = training_layout(DreamZeroConfig(width=24, ffn_width=8, num_heads=2, num_blocks=1), 5, 1, 1)
            >>> [layout.block_of(frame) for frame in range(5)]
            [-1, 0, 0, 1, 1]
        """
        return FIRST_FRAME if frame == 0 else (frame - 1) // self.latents_per_block


def training_layout(config: DreamZeroConfig, num_frames: int, rows: int, cols: int) -> Layout:
    """Return the tokens of a whole clip: all frames clean, all frames noisy, all actions, all states.

    Raises:
        ValueError: If the frames are not the first one and whole blocks, or more than the window holds.
    """
    num_blocks, rest = divmod(num_frames - 1, config.latents_per_block)
    if rest or not 1 <= num_blocks <= config.window_blocks:
        raise ValueError(
            f"A clip must have 1 to {config.window_blocks} blocks of {config.latents_per_block} latent frames after "
            f"its first one, got {num_frames} latent frames."
        )
    return _layout(config, range(num_frames), range(num_frames), range(num_blocks), rows, cols)


def observed_layout(config: DreamZeroConfig, frames: range, rows: int, cols: int) -> Layout:
    """Return the tokens of observed frames, which are about to enter the cache."""
    return _layout(config, frames, range(0), range(0), rows, cols)


def block_layout(config: DreamZeroConfig, block: int, rows: int, cols: int) -> Layout:
    """Return the tokens of one block that is denoised; the frames before it are in the cache.

    Raises:
        ValueError: If the window ends before it.
    """
    if block >= config.window_blocks:
        raise ValueError(f"The window has {config.window_blocks} blocks, there is no block {block}.")
    return _layout(config, range(0), frames_of(config, block), range(block, block + 1), rows, cols)


def frames_of(config: DreamZeroConfig, block: int) -> range:
    """Return the absolute indices of a block's latent frames.

    Example:
        >>> frames_of(DreamZeroConfig(width=24, ffn_width=8, num_heads=2, num_blocks=1), 1)
        range(3, 5)
    """
    first = 1 + block * config.latents_per_block
    return range(first, first + config.latents_per_block)


def _layout(config: DreamZeroConfig, clean: range, noisy: range, blocks: range, rows: int, cols: int) -> Layout:
    return Layout(
        clean_frames=clean,
        noisy_frames=noisy,
        blocks=blocks,
        rows=rows,
        cols=cols,
        latents_per_block=config.latents_per_block,
        actions_per_block=config.actions_per_block,
    )


# ---- who reads whom


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def tokens_of(layout: Layout) -> Tokens:
    """Return kind and block of every token."""
    per_frame = layout.tokens_per_frame
    clean, noisy = (
        [layout.block_of(frame) for frame in frames for _ in range(per_frame)]
        for frames in (layout.clean_frames, layout.noisy_frames)
    )
    actions = [block for block in layout.blocks for _ in range(layout.actions_per_block)]
    kinds = torch.arange(4).repeat_interleave(torch.tensor(layout.sizes))
    return Tokens(kinds, torch.tensor([*clean, *noisy, *actions, *layout.blocks], dtype=torch.int64))


def reads(
    query_kind: Tensor, query_block: Tensor, key_kind: Tensor, key_block: Tensor, state_reads: StateReads = "itself"
) -> Tensor:
    """Return whether a query reads a key, by kinds and blocks.

    Clean tokens read clean tokens up to their block. Noisy tokens and actions read clean tokens before their block,
    and noisy tokens, actions and the state of their block. A state reads itself. As the first frame is block -1, no
    case is needed for it: clean, it reads itself and is read by all; noisy, it reads itself alone.
    """
    clean_key, same = key_kind == CLEAN, query_block == key_block
    of_clean = (query_kind == CLEAN) & clean_key & (key_block <= query_block)
    looking = (query_kind == NOISY) | (query_kind == ACTION)
    if state_reads == "block":
        looking = looking | (query_kind == STATE)
    of_block = looking & ((clean_key & (key_block < query_block)) | (~clean_key & same))
    return of_clean | of_block | ((query_kind == STATE) & (key_kind == STATE) & same)


def mask_of(layout: Layout, state_reads: StateReads = "itself") -> Tensor:
    """Return whether each query (row) reads each key (column), L,L bool."""
    kind, block = tokens_of(layout)
    return reads(kind[:, None], block[:, None], kind[None], block[None], state_reads)


def mask_rule(layout: Layout, device: torch.device) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return the rule of the mask by token index, as FlexAttention takes it."""
    kind, block = (values.to(device) for values in tokens_of(layout))

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return reads(kind[query], block[query], kind[key], block[key])

    return rule


# ---- positions


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # a table made during inference must serve training too
def rope_of(layout: Layout, head_width: int, device: torch.device) -> Rope:
    """Return the rotations of all tokens; angles in float64, tables in float32.

    Video: (absolute latent frame, row, column), as Wan. Actions: their index in the window, over the whole head.
    States: their block, over the whole head.
    """
    frames = [*layout.clean_frames, *layout.noisy_frames]
    axes = [torch.tensor(frames), torch.arange(layout.rows), torch.arange(layout.cols)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3).double()
    video = [grid[:, axis, None] * _frequencies(size) for axis, size in enumerate(rope_axes(head_width))]
    actions = [block * layout.actions_per_block + k for block in layout.blocks for k in range(layout.actions_per_block)]
    line = torch.tensor([*actions, *layout.blocks], dtype=torch.float64)[:, None] * _frequencies(head_width)
    angle = torch.cat([torch.cat(video, dim=1), line])[:, None]
    return Rope(angle.cos().float().to(device), angle.sin().float().to(device))


def _frequencies(size: int) -> Tensor:
    """Return the frequencies of the pairs of `size` numbers."""
    return ROPE_THETA ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
