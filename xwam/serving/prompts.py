"""The prompts of a policy as its network reads them, with a bound on their memory.

In: prompts. Out: `TextContext`s, made at most once while they are stored.
Read next: `xwam/text/tokens.py` for the rows of a prompt, `engine.py` for the caller.
"""

from __future__ import annotations

import torch

from xwam.checkpoints.bundle import Bundle
from xwam.config import NetworkConfig
from xwam.network.transformer import TextContext, context_bytes
from xwam.text.memory import GIB, Recent
from xwam.text.tokens import TextTokens

PROMPT_BYTES = GIB
"""Default bound; at 5B in bfloat16 it holds 21 prompts of 13 tokens, and the text rows of 97."""

LEAST_BUCKET = 32
"""Rows of the smallest bucket, which holds what most prompts need: their tokens and a few rows behind them."""

TEXT_FRAC = 1 / 8
"""Share of the bound for text rows. Keys and values are made from them again in one pass of two matrices a block, while
the text rows themselves need a pass of umT5."""


class PromptStore:
    """The prompts that were used last: their text rows, and their keys and values in every block.

    Args:
        bundle: The model.
        max_bytes: Largest memory of both together.
        in_buckets: Whether a prompt has as many rows as its bucket (`bucket_of`), so that prompts of other lengths can
            be read in one pass; else as many as it needs.
    """

    def __init__(self, bundle: Bundle, *, max_bytes: int = PROMPT_BYTES, in_buckets: bool = False) -> None:
        self._bundle, self._in_buckets = bundle, in_buckets
        text_bytes = int(max_bytes * TEXT_FRAC)
        self._texts: Recent[TextTokens] = Recent(text_bytes)
        self._contexts: Recent[TextContext] = Recent(max_bytes - text_bytes)

    @property
    def num_bytes(self) -> int:
        """Return the memory of everything that is stored."""
        return self._texts.num_bytes + self._contexts.num_bytes

    def read(self, prompt: str) -> TextContext:
        """Return a prompt as the blocks read it."""
        return self._contexts.get(prompt, lambda: self._make(prompt))

    def _make(self, prompt: str) -> TextContext:
        text = self._texts.get(prompt, lambda: self._bundle.text_encoder.encode(prompt))
        network = self._bundle.network
        context: TextContext = network.with_depth_text(network.encode_text(text))
        return context.filled(bucket_of(context.num_tokens)) if self._in_buckets else context


def bucket_of(num_rows: int) -> int:
    """Return the rows to which a prompt is filled up, which depend on the prompt alone: a power of two.

    Example:
        >>> [bucket_of(num_rows) for num_rows in (3, 32, 33, 512)]
        [32, 32, 64, 512]
    """
    return max(LEAST_BUCKET, 1 << (num_rows - 1).bit_length())


def peak_prompt_bytes(
    config: NetworkConfig, dtype: torch.dtype, *, num_prompts: int, num_rows: int, max_bytes: int = PROMPT_BYTES
) -> int:
    """Return the largest memory that a `PromptStore` takes, from shapes: what it stores, and the prompt being made.

    Args:
        config: The network.
        dtype: Type of its matrices.
        num_prompts: Different prompts.
        num_rows: Rows of each that attention reads; `text_len` where no two rows are equal.
        max_bytes: Bound of the store.

    Example:
        >>> from xwam.config import WAN22_5B
        >>> peak_prompt_bytes(WAN22_5B, torch.bfloat16, num_prompts=64, num_rows=512) / GIB < 1.25
        True
    """
    one = context_bytes(config, num_rows, dtype) + num_rows * config.text_width * torch.float32.itemsize
    return min(num_prompts * one, max_bytes) + one
