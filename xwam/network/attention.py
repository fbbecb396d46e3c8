"""Attention with normalised queries and keys.

In: tokens, rotations. Out: queries, keys and values; what the queries read.
Read next: `layers.py`, whose blocks hold it; `processor.py` for what a CPU is good at.

Letters: B batch, L tokens that read, N tokens that are read, D width, J heads, E width of a head, P pairs of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xwam.network.processor import by_hand, functional, multiplies_bfloat16
from xwam.network.rope import Rope, rotate, turn_pairs


class KeyValue(NamedTuple):
    """Keys and values of one attention layer, B,J,L,E each."""

    key: Tensor
    value: Tensor

    @staticmethod
    def cat(parts: Sequence[KeyValue]) -> KeyValue:
        """Return the keys and values of several groups of tokens as those of one."""
        keys, values = zip(*parts, strict=True)
        return KeyValue(torch.cat(keys, dim=2), torch.cat(values, dim=2))


class Joined(NamedTuple):
    """The weights of queries, keys and values as one piece of memory.

    Attributes:
        weight: Makes queries, keys and values in one product.
        bias: Is added to it.
        norm_2D: Scales of queries and keys.
        addresses: Of all weights that lie in it.
    """

    weight: Tensor
    bias: Tensor
    norm_2D: Tensor
    addresses: tuple[int, ...]


class RMSNorm(nn.Module):
    """Division by the root mean square over the full width, before heads are split."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Return the scaled tokens."""
        if x_BLD.is_cuda:  # there one kernel does it; on a CPU PyTorch's takes twice as long as these three passes
            return F.rms_norm(x_BLD, self.weight.shape, self.weight, self.eps)
        length = torch.linalg.vector_norm(x_BLD, dim=-1, keepdim=True, dtype=torch.float32)
        factor = (length.square() / x_BLD.shape[-1] + self.eps).rsqrt()
        return (x_BLD * factor).to(x_BLD.dtype) * self.weight


FEW_KEYS, FEW_LOGITS = 32, 1 << 13
"""PyTorch's fused attention is as fast as single operations where fewer tokens are read, or a head has fewer logits."""

MOST_LOGITS = 1 << 24
"""So many logits are in memory at once; more queries wait for their turn."""


def attend(query_BJLE: Tensor, memory: KeyValue, bias_BN: Tensor | None = None) -> Tensor:
    """Return what the queries read, B,J,L,E.

    PyTorch's fused attention, unless a CPU is faster with single operations. A row of a batch depends on its own tokens
    and on the sizes of the batch alone.

    Args:
        query_BJLE: Queries.
        memory: Keys and values.
        bias_BN: Added to the logits of each token that is read; None for nothing.
    """
    if _is_faster_spelt_out(query_BJLE, memory):
        return _spelt_out(query_BJLE, memory, bias_BN)
    mask = None if bias_BN is None else bias_BN[:, None, None]
    if functional() and not query_BJLE.is_cuda:
        return _with_gradient(query_BJLE, memory, mask)
    mask = None if mask is None else mask.to(query_BJLE.dtype)
    return F.scaled_dot_product_attention(query_BJLE, memory.key, memory.value, attn_mask=mask)


def _is_faster_spelt_out(query_BJLE: Tensor, memory: KeyValue) -> bool:
    """Return whether single operations are faster than fused attention: in bfloat16, on a CPU that multiplies it.

    Measured with AVX512-BF16: 761 tokens read each other in 8 ms, not 19. Logits are rounded before the softmax: the
    result is off by 0.5 to 1.5 %, where that of fused attention is off by 0.2 %.
    """
    (queries, keys), is_bfloat16 = (query_BJLE.shape[2], memory.key.shape[2]), query_BJLE.dtype == torch.bfloat16
    is_large = keys >= FEW_KEYS and queries * keys >= FEW_LOGITS
    return is_bfloat16 and is_large and by_hand(query_BJLE) and multiplies_bfloat16()


def _spelt_out(query_BJLE: Tensor, memory: KeyValue, bias_BN: Tensor | None) -> Tensor:
    """Return attention in three operations, of as many queries at once as `MOST_LOGITS` allows."""
    (batch, heads, _, width), tokens = query_BJLE.shape, memory.key.shape[2]
    query_XLE, key_XNE, value_XNE = (part.flatten(0, 1) for part in (query_BJLE, *memory))
    bias_X1N, share = query_XLE.new_zeros(1, 1, 1), 0.0
    if bias_BN is not None:
        bias_X1N, share = bias_BN.repeat_interleave(heads, 0)[:, None].to(query_XLE.dtype), 1.0
    parts = []
    for part_XLE in query_XLE.split(max(1, MOST_LOGITS // (batch * heads * tokens)), dim=1):
        logits = torch.baddbmm(bias_X1N, part_XLE, key_XNE.transpose(1, 2), beta=share, alpha=width**-0.5)
        parts.append(torch.bmm(logits.softmax(-1), value_XNE))
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).unflatten(0, (batch, heads))


def _with_gradient(query_BJLE: Tensor, memory: KeyValue, mask: Tensor | None) -> Tensor:
    """Return attention in single operations; on a CPU in bfloat16 its gradient is three times as fast as PyTorch's."""
    logits = query_BJLE @ memory.key.transpose(-1, -2) * query_BJLE.shape[-1] ** -0.5
    weights = (logits if mask is None else logits + mask).softmax(-1)
    return weights.to(memory.value.dtype) @ memory.value


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Return tensors as one, after moving each to its place in it."""
    whole = torch.cat([part.data for part in parts])
    for part, piece in zip(parts, whole.split([len(part) for part in parts]), strict=True):
        part.data = piece
    return whole


class BlockSizes(Protocol):
    """What a block reads of a configuration: a `NetworkConfig`, or the sizes of one of several streams of tokens."""

    @property
    def width(self) -> int:
        """Return the numbers in a token."""

    @property
    def ffn_width(self) -> int:
        """Return the hidden width of the MLP."""

    @property
    def num_heads(self) -> int:
        """Return the attention heads."""

    @property
    def attention_width(self) -> int:
        """Return the numbers in all heads together."""

    @property
    def eps(self) -> float:
        """Return what is added in every normalisation."""


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys, for self- and cross-attention."""

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        width, heads = sizes.width, sizes.attention_width
        self.num_heads = sizes.num_heads
        self.q = nn.Linear(width, heads)
        self.k = nn.Linear(width, heads)
        self.v = nn.Linear(width, heads)
        self.o = nn.Linear(heads, width)
        self.norm_q = RMSNorm(heads, sizes.eps)
        self.norm_k = RMSNorm(heads, sizes.eps)
        self._together: Joined | None = None

    def query(self, x_BLD: Tensor) -> Tensor:
        """Return the queries, B,J,L,E, of cross-attention."""
        return self._heads(self.norm_q(self.q(x_BLD)))

    def key_value(self, x_BLD: Tensor) -> KeyValue:
        """Return keys and values of the tokens to be read by cross-attention."""
        return KeyValue(self._heads(self.norm_k(self.k(x_BLD))), self._heads(self.v(x_BLD)))

    def query_key_value(self, x_BLD: Tensor, rope: Rope) -> tuple[Tensor, KeyValue]:
        """Return queries, keys and values of self-attention."""
        if by_hand(x_BLD) and (joined := self._in_one_piece()) is not None:
            return self._in_one_product(x_BLD, rope, joined)
        q, k, v = self.norm_q(self.q(x_BLD)), self.norm_k(self.k(x_BLD)), self.v(x_BLD)
        return self._heads(q, rope), KeyValue(self._heads(k, rope), self._heads(v))

    def read(self, query_BJLE: Tensor, memory: KeyValue, bias_BN: Tensor | None = None) -> Tensor:
        """Return the attention output, B,L,D; a bias is added to the logits of each token that is read."""
        return self.o(attend(query_BJLE, memory, bias_BN).transpose(1, 2).flatten(2))

    def join(self) -> None:
        """Let the weights of queries, keys and values lie next to each other in memory, so that one product makes all.

        Names, values and the sum of all memory stay, and whoever changes a weight in place changes the joined one.
        Another type or device, or a copy of the module, takes them apart again; then three products make the same, up
        to rounding.
        """
        q, k, v = self.q, self.k, self.v
        weight, bias = _joined([q.weight, k.weight, v.weight]), _joined([q.bias, k.bias, v.bias])
        norm_2D = _joined([self.norm_q.weight, self.norm_k.weight]).unflatten(0, (2, -1))
        self._together = Joined(weight, bias, norm_2D, self._addresses())

    def _addresses(self) -> tuple[int, ...]:
        """Return where the weights of queries, keys and values lie."""
        q, k, v = self.q, self.k, self.v
        parts = q.weight, k.weight, v.weight, q.bias, k.bias, v.bias, self.norm_q.weight, self.norm_k.weight
        return tuple([part.data_ptr() for part in parts])

    def _in_one_piece(self) -> Joined | None:
        """Return the joined weights; None if they were not joined, or are not where they were then."""
        if self._together is not None and self._together.addresses != self._addresses():
            self._together = None
        return self._together

    def _in_one_product(self, x_BLD: Tensor, rope: Rope, joined: Joined) -> tuple[Tensor, KeyValue]:
        """Return queries, keys and values of one product; queries and keys are normalised and turned together."""
        qk_BLD, v_BLD = F.linear(x_BLD, joined.weight, joined.bias).tensor_split([2 * len(self.q.bias)], dim=-1)
        qk_BL2D = qk_BLD.unflatten(-1, (2, -1)).float()
        length = torch.linalg.vector_norm(qk_BL2D, dim=-1, keepdim=True)
        factor = (length.square() / qk_BL2D.shape[-1] + self.norm_q.eps).rsqrt()
        turned = turn_pairs((qk_BL2D * factor).mul_(joined.norm_2D).unflatten(-1, (self.num_heads, -1)), rope)
        query, key = turned.to(x_BLD.dtype)
        return query, KeyValue(key, self._heads(v_BLD))

    def _heads(self, x_BLD: Tensor, rope: Rope | None = None) -> Tensor:
        x_BLJE = x_BLD.unflatten(-1, (self.num_heads, -1))
        if rope is not None:
            return rotate(x_BLJE, rope).transpose(1, 2)
        x_BJLE = x_BLJE.transpose(1, 2)
        return x_BJLE if functional() or x_BLD.is_cuda else x_BJLE.contiguous()  # a CPU reads heads faster in a row
