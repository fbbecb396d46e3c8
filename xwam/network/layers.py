"""Layers of the transformer: modulation by timesteps, blocks, heads.

In: tokens, rotations, projected timesteps. Out: tokens.
Read next: `attention.py`, the part that reads other tokens; `transformer.py`, which puts all together.

Letters: B batch, L tokens, N text tokens, D width, G distinct timesteps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xwam.config import NetworkConfig
from xwam.network.attention import Attention, BlockSizes, KeyValue
from xwam.network.processor import functional, linear_gelu
from xwam.network.rope import Rope

MLP_TOKENS = 384
"""Tokens that go through an MLP together on a CPU, so that its wide middle stays in the cache."""

FEW_TOKENS = 384
"""Up to here, on a CPU, every token has its own row of modulation: that costs less than an operation for each run."""

Runs = tuple[tuple[int, int], ...]
"""(timestep, number of tokens) along the token sequence."""


# ---- timesteps


def timestep_code(t_BG: Tensor, width: int) -> Tensor:
    """Return [cos, sin] of each timestep at geometric frequencies, B,G,width float32; angles in float64."""
    half = width // 2
    frequencies = 10000.0 ** -(torch.arange(half, dtype=torch.float64, device=t_BG.device) / half)
    angle = t_BG.double()[..., None] * frequencies
    return torch.cat([angle.cos(), angle.sin()], dim=-1).float()


def head_runs(runs: Runs, num_tokens: int) -> Runs:
    """Return the runs of the first `num_tokens` tokens.

    Example:
        >>> head_runs([(0, 4), (1, 8), (2, 5)], 10)
        ((0, 4), (1, 6))
    """
    head = []
    for group, length in runs:
        if num_tokens > 0:
            head.append((group, min(length, num_tokens)))
        num_tokens -= length
    return tuple(head)


@lru_cache(maxsize=16)
def group_of_token(runs: Runs) -> Tensor:
    """Return the timestep's column for each token, L."""
    groups, lengths = zip(*runs, strict=True)
    return torch.tensor(groups).repeat_interleave(torch.tensor(lengths))


def by_token(values_BGX: Tensor, runs: Runs, like_BLD: Tensor) -> tuple[Tensor, Runs | None]:
    """Return values for `modulate` and `gated_add`, and their runs.

    On a CPU, each of few tokens gets its own row, B,L,...; there are no runs then (None).
    """
    if functional() or like_BLD.is_cuda or like_BLD.shape[1] > FEW_TOKENS:
        return values_BGX, runs
    return values_BGX.index_select(1, group_of_token(runs)), None


def modulate(x_BLD: Tensor, shift_BGD: Tensor, scale_BGD: Tensor, runs: Runs | None) -> Tensor:
    """Return x * (1 + scale) + shift, each run of tokens with its own timestep's values; float32."""
    factor_BGD = 1 + scale_BGD
    if runs is None:
        return torch.addcmul(shift_BGD, x_BLD.float(), factor_BGD)
    parts = x_BLD.split([length for _, length in runs], dim=1)
    terms = [(shift_BGD[:, g, None], x, factor_BGD[:, g, None]) for (g, _), x in zip(runs, parts, strict=True)]
    return _fused_by_runs(terms, x_BLD)


def gated_add(x_BLD: Tensor, y_BLD: Tensor, gate_BGD: Tensor, runs: Runs | None) -> Tensor:
    """Return x + y * gate, each run of tokens with its own timestep's gate; float32."""
    if runs is None:
        return torch.addcmul(x_BLD, y_BLD.float(), gate_BGD)
    lengths = [length for _, length in runs]
    parts = zip(runs, x_BLD.split(lengths, dim=1), y_BLD.split(lengths, dim=1), strict=True)
    return _fused_by_runs([(x, y, gate_BGD[:, group, None]) for (group, _), x, y in parts], x_BLD)


def _fused_by_runs(terms: Sequence[tuple[Tensor, Tensor, Tensor]], like_BLD: Tensor) -> Tensor:
    """Return a + b * c of each run, in the order of the runs; without gradients, written directly to the result."""
    if functional():
        return torch.cat([torch.addcmul(a, b.float(), c) for a, b, c in terms], dim=1)
    out, start = torch.empty_like(like_BLD), 0
    for a, b, c in terms:
        torch.addcmul(a, b.float(), c, out=out[:, start : start + b.shape[1]])
        start += b.shape[1]
    return out


# ---- layers


class Modulation(NamedTuple):
    """Shift, scale and gate of a block's self-attention, then of its MLP, and the runs of tokens that have them."""

    shift1: Tensor
    scale1: Tensor
    gate1: Tensor
    shift2: Tensor
    scale2: Tensor
    gate2: Tensor
    runs: Runs | None


class Block(nn.Module):
    """One layer: self-attention, cross-attention to the text, an MLP; the timestep shifts, scales and gates."""

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.width, sizes.eps, elementwise_affine=False)
        self.self_attn = Attention(sizes)
        self.norm3 = nn.LayerNorm(sizes.width, sizes.eps)
        self.cross_attn = Attention(sizes)
        self.norm2 = nn.LayerNorm(sizes.width, sizes.eps, elementwise_affine=False)
        self.ffn = MLP(sizes.width, sizes.ffn_width, sizes.width)
        self.modulation = nn.Parameter(torch.randn(1, 6, sizes.width) / sizes.width**0.5)

    def forward(
        self,
        x_BLD: Tensor,
        time_BG6D: Tensor,
        runs: Runs,
        rope: Rope,
        text: KeyValue,
        text_bias_BN: Tensor | None,
        other: KeyValue | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """Return the tokens after this layer, and this layer's own keys and values.

        Args:
            x_BLD: Residual stream, float32.
            time_BG6D: Projected timesteps, float32.
            runs: Which tokens stand at which timestep.
            rope: Rotations of these tokens.
            text: Keys and values of the prompt.
            text_bias_BN: Added to the attention logits of the prompt's tokens; None for nothing.
            other: Keys and values of another branch, read together with this block's own.
        """
        query, own, modulation = self.before_attention(x_BLD, time_BG6D, runs, rope)
        memory = own if other is None else KeyValue.cat([own, other])
        x_BLD = self.after_attention(x_BLD, self.self_attn.read(query, memory), modulation, text, text_bias_BN)
        return x_BLD, own

    def before_attention(
        self, x_BLD: Tensor, time_BG6D: Tensor, runs: Runs, rope: Rope
    ) -> tuple[Tensor, KeyValue, Modulation]:
        """Return the queries, keys and values of self-attention, and the modulation for `after_attention`."""
        values, parts = by_token(time_BG6D + self.modulation.float(), runs, x_BLD)
        shift1, scale1, gate1, shift2, scale2, gate2 = values.unbind(2)
        modulation = Modulation(shift1, scale1, gate1, shift2, scale2, gate2, parts)
        seen = modulate(self.norm1(x_BLD), shift1, scale1, parts)
        query, own = self.self_attn.query_key_value(seen.to(self.self_attn.q.weight.dtype), rope)
        return query, own, modulation

    def after_attention(
        self, x_BLD: Tensor, read_BLD: Tensor, modulation: Modulation, text: KeyValue, text_bias_BN: Tensor | None
    ) -> Tensor:
        """Return the tokens after this layer, given the output of self-attention."""
        dtype, parts = self.self_attn.q.weight.dtype, modulation.runs
        x_BLD = gated_add(x_BLD, read_BLD, modulation.gate1, parts)
        normed = self.norm3(x_BLD).to(dtype)
        x_BLD = x_BLD + self.cross_attn.read(self.cross_attn.query(normed), text, text_bias_BN)
        fed = self._fed(modulate(self.norm2(x_BLD), modulation.shift2, modulation.scale2, parts).to(dtype))
        return gated_add(x_BLD, fed, modulation.gate2, parts)

    def _fed(self, x_BLD: Tensor) -> Tensor:
        """Return the tokens after the MLP."""
        if functional() or x_BLD.is_cuda or x_BLD.shape[1] <= MLP_TOKENS:
            return self.ffn(x_BLD)  # type: ignore[no-any-return]
        return torch.cat([self.ffn(part) for part in x_BLD.split(MLP_TOKENS, dim=1)], dim=1)


class Head(nn.Module):
    """The last layer for video or depth tokens: from a token to the numbers of a latent patch."""

    def __init__(self, config: NetworkConfig, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, config.eps, elementwise_affine=False)
        self.head = nn.Linear(config.width, channels * math.prod(config.patch_hw))
        self.modulation = nn.Parameter(torch.randn(1, 2, config.width) / config.width**0.5)

    def forward(self, x_BLD: Tensor, time_BGD: Tensor, runs: Runs) -> Tensor:
        """Return one patch for each token, B,L,patch numbers."""
        values, parts = by_token(time_BGD[:, :, None] + self.modulation, runs, x_BLD)
        shift, scale = values.unbind(2)
        return self.head(modulate(self.norm(x_BLD), shift, scale, parts))  # type: ignore[no-any-return]


class MLP(nn.Sequential):
    """Linear, GELU (tanh form), Linear."""

    def __init__(self, width_in: int, width_hidden: int, width_out: int) -> None:
        super().__init__(
            nn.Linear(width_in, width_hidden), nn.GELU(approximate="tanh"), nn.Linear(width_hidden, width_out)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer's output."""
        return self[2](linear_gelu(x, self[0]))  # type: ignore[no-any-return,arg-type]
