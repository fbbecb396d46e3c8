"""Self-attention in which each token reads what the layout says.

In: a layout, queries, keys and values. Out: attention outputs.
Read next: `layout.py`, which says who reads whom; `network.py`, which calls it in every block.

Training reads by a mask: FlexAttention on CUDA, which skips tiles that the mask empties; a dense mask elsewhere,
because FlexAttention has no gradients on a CPU (PyTorch 2.13). Inference needs no mask: every token of a block reads
the cache and its block, and only the state token, which reads itself, is computed apart.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.dreamzero.layout import Layout, mask_of, mask_rule
from xwam.network.attention import KeyValue

Attend = Callable[[Tensor, KeyValue], Tensor]
"""Queries B,J,L,E and the keys and values to read, to outputs B,J,L,E."""


def by_mask(layout: Layout, device: torch.device) -> Attend:
    """Return the attention of training: FlexAttention on CUDA, a dense mask elsewhere."""
    return by_flex_mask(layout, device, compiled=True) if device.type == "cuda" else by_dense_mask(layout, device)


def by_dense_mask(layout: Layout, device: torch.device) -> Attend:
    """Return attention with a mask of L x L."""
    mask_LL = _mask(layout, device)

    def attend(query_BJLE: Tensor, memory: KeyValue) -> Tensor:
        return F.scaled_dot_product_attention(query_BJLE, memory.key, memory.value, attn_mask=mask_LL)

    return attend


def by_flex_mask(layout: Layout, device: torch.device, *, compiled: bool) -> Attend:
    """Return FlexAttention with the rule of the mask.

    Args:
        layout: The tokens.
        device: Where they are.
        compiled: Whether to compile it; else it computes the whole matrix of logits, as a check.
    """
    flex, block_mask = _flex(compiled), _block_mask(layout, device)

    def attend(query_BJLE: Tensor, memory: KeyValue) -> Tensor:
        return flex(query_BJLE, memory.key, memory.value, block_mask=block_mask)  # type: ignore[no-any-return]

    return attend


def of_block(num_states: int) -> Attend:
    """Return the attention of one block against the cache: everything is read, but the last tokens read themselves.

    The keys and values must begin with those of the block, in the order of its tokens, before the cache.

    Args:
        num_states: State tokens that read themselves alone; 0 where they read everything.
    """

    def attend(query_BJLE: Tensor, memory: KeyValue) -> Tensor:
        length = query_BJLE.shape[2]
        states = slice(length - num_states, length)
        looking = F.scaled_dot_product_attention(query_BJLE[:, :, : states.start], memory.key, memory.value)
        return torch.cat([looking, memory.value[:, :, states]], dim=2)

    return attend


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _mask(layout: Layout, device: torch.device) -> Tensor:
    return mask_of(layout).to(device)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _block_mask(layout: Layout, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    size = layout.num_tokens
    return create_block_mask(mask_rule(layout, device), None, None, size, size, device=str(device))


@cache
def _flex(compiled: bool) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    chosen: Any = torch.compile(flex_attention) if compiled else flex_attention
    return chosen  # type: ignore[no-any-return]
