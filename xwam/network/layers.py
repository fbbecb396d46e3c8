"""Layers of the transformer: rotary positions, modulation by timesteps, attention, blocks, heads.

In: tokens, rotations, projected timesteps. Out: tokens.
Read next: `transformer.py`, which puts them together.

Letters: B batch, L tokens, N text tokens, D width, G distinct timesteps, J heads, E width of a head, P pairs of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from xwam.config import Geometry, NetworkConfig

ROPE_THETA = 10000.0
MLP_TOKENS = 384
"""Tokens that go through an MLP together on a CPU, so that its wide middle stays in the cache."""

FEW_TOKENS = 384
"""Up to here, on a CPU, every token has its own row of modulation: that costs less than an operation for each run."""

Runs = tuple[tuple[int, int], ...]
"""(timestep, number of tokens) along the token sequence."""


def _functional() -> bool:
    """Return whether results must be new tensors: gradients are recorded, or the compiler fuses the operations."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


# ---- rotary positions


class Rope(NamedTuple):
    """Cosine and sine of every token's rotation, L,1,E/2 each, float32; two neighbouring numbers turn together."""

    cos_L1P: Tensor
    sin_L1P: Tensor


def rope_axes(head_width: int) -> tuple[int, int, int]:
    """Return the numbers of a head that turn with time, row and column.

    Example:
        >>> rope_axes(128)
        (44, 42, 42)
    """
    sixth = head_width // 6
    return head_width - 4 * sixth, 2 * sixth, 2 * sixth


def token_positions(config: NetworkConfig, geometry: Geometry) -> Float[Tensor, "tokens 3"]:
    """Return (latent frame, row, column) of every token; actions and states lie between latent frames.

    Action k lies at k / (frames_per_latent * actions_per_frame), state k at k / frames_per_latent, both in row and
    column 0; all views share the positions of the first.
    """
    g = geometry
    axes = [torch.arange(size, dtype=torch.float64) for size in (g.num_frames, g.num_views, g.rows, g.cols)]
    video = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 4)[:, [0, 2, 3]]
    positions = torch.zeros(g.num_tokens, 3, dtype=torch.float64)
    first_action, first_proprio = g.num_video_tokens, g.num_video_tokens + g.num_actions
    positions[:first_action] = video
    actions = torch.arange(g.num_actions, dtype=torch.float64)
    positions[first_action:first_proprio, 0] = actions / (config.frames_per_latent * config.actions_per_frame)
    positions[first_proprio:, 0] = torch.arange(g.num_proprios, dtype=torch.float64) / config.frames_per_latent
    return positions


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # a table made during inference must serve training too
def rope_table(config: NetworkConfig, geometry: Geometry, device: torch.device) -> Rope:
    """Return the rotations of all tokens; angles are computed in float64 and stored in float32."""
    positions = token_positions(config, geometry)
    if config.depth == "sequence":
        video = positions[: geometry.num_video_tokens]
        positions = torch.cat([video, video, positions[geometry.num_video_tokens :]])
    angles = []
    for axis, size in enumerate(rope_axes(config.head_width)):
        frequencies = ROPE_THETA ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
        angles.append(positions[:, axis, None] * frequencies)
    angle = torch.cat(angles, dim=1)[:, None]
    return Rope(angle.cos().float().to(device), angle.sin().float().to(device))


def rotate(x_BLJE: Tensor, rope: Rope) -> Tensor:
    """Return queries or keys turned by their positions, in real float32 arithmetic."""
    pairs = x_BLJE.float().unflatten(-1, (-1, 2))
    even, odd = pairs.unbind(-1)
    if _functional():
        turned = torch.stack([even * rope.cos_L1P - odd * rope.sin_L1P, odd * rope.cos_L1P + even * rope.sin_L1P], -1)
    else:  # the same without a temporary for each product, and laid out head by head, as attention reads it
        turned = torch.empty_like(pairs.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        torch.addcmul(even * rope.cos_L1P, odd, rope.sin_L1P, value=-1, out=turned[..., 0])
        torch.addcmul(odd * rope.cos_L1P, even, rope.sin_L1P, out=turned[..., 1])
    return turned.flatten(-2).to(x_BLJE.dtype)


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
def _group_of_token(runs: Runs) -> Tensor:
    """Return the timestep's column for each token, L."""
    groups, lengths = zip(*runs, strict=True)
    return torch.tensor(groups).repeat_interleave(torch.tensor(lengths))


def by_token(values_BGX: Tensor, runs: Runs, like_BLD: Tensor) -> tuple[Tensor, Runs | None]:
    """Return values for `modulate` and `gated_add`, and their runs.

    On a CPU, each of few tokens gets its own row, B,L,...; there are no runs then (None).
    """
    if _functional() or like_BLD.is_cuda or like_BLD.shape[1] > FEW_TOKENS:
        return values_BGX, runs
    return values_BGX.index_select(1, _group_of_token(runs)), None


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
    if _functional():
        return torch.cat([torch.addcmul(a, b.float(), c) for a, b, c in terms], dim=1)
    out, start = torch.empty_like(like_BLD), 0
    for a, b, c in terms:
        torch.addcmul(a, b.float(), c, out=out[:, start : start + b.shape[1]])
        start += b.shape[1]
    return out


# ---- layers


class KeyValue(NamedTuple):
    """Keys and values of one attention layer, B,J,L,E each."""

    key: Tensor
    value: Tensor

    @staticmethod
    def cat(parts: Sequence[KeyValue]) -> KeyValue:
        """Return the keys and values of several groups of tokens as those of one."""
        keys, values = zip(*parts, strict=True)
        return KeyValue(torch.cat(keys, dim=2), torch.cat(values, dim=2))


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


def _attended(query_BJLE: Tensor, memory: KeyValue, mask: Tensor | None) -> Tensor:
    """Return attention in single operations; on a CPU in bfloat16 its gradient is three times as fast as PyTorch's."""
    logits = query_BJLE @ memory.key.transpose(-1, -2) * query_BJLE.shape[-1] ** -0.5
    weights = (logits if mask is None else logits + mask).softmax(-1)
    return weights.to(memory.value.dtype) @ memory.value


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

    def query(self, x_BLD: Tensor) -> Tensor:
        """Return the queries, B,J,L,E, of cross-attention."""
        return self._heads(self.norm_q(self.q(x_BLD)))

    def key_value(self, x_BLD: Tensor) -> KeyValue:
        """Return keys and values of the tokens to be read by cross-attention."""
        return KeyValue(self._heads(self.norm_k(self.k(x_BLD))), self._heads(self.v(x_BLD)))

    def query_key_value(self, x_BLD: Tensor, rope: Rope) -> tuple[Tensor, KeyValue]:
        """Return queries, keys and values of self-attention."""
        q, k, v = self.norm_q(self.q(x_BLD)), self.norm_k(self.k(x_BLD)), self.v(x_BLD)
        return self._heads(q, rope), KeyValue(self._heads(k, rope), self._heads(v))

    def read(self, query_BJLE: Tensor, memory: KeyValue, bias_BN: Tensor | None = None) -> Tensor:
        """Return the attention output, B,L,D; a bias is added to the logits of each token that is read."""
        mask = None if bias_BN is None else bias_BN[:, None, None]
        if _functional() and not query_BJLE.is_cuda:
            output = _attended(query_BJLE, memory, mask)
        else:
            mask = None if mask is None else mask.to(query_BJLE.dtype)
            output = F.scaled_dot_product_attention(query_BJLE, memory.key, memory.value, attn_mask=mask)
        return self.o(output.transpose(1, 2).flatten(2))

    def _heads(self, x_BLD: Tensor, rope: Rope | None = None) -> Tensor:
        x_BLJE = x_BLD.unflatten(-1, (self.num_heads, -1))
        if rope is not None:
            return rotate(x_BLJE, rope).transpose(1, 2)
        x_BJLE = x_BLJE.transpose(1, 2)
        return x_BJLE if _functional() or x_BLD.is_cuda else x_BJLE.contiguous()  # a CPU reads heads faster in a row


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
        self.ffn = mlp(sizes.width, sizes.ffn_width, sizes.width)
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
        if _functional() or x_BLD.is_cuda or x_BLD.shape[1] <= MLP_TOKENS:
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


def mlp(width_in: int, width_hidden: int, width_out: int) -> nn.Sequential:
    """Return Linear, GELU (tanh form), Linear."""
    return nn.Sequential(
        nn.Linear(width_in, width_hidden), nn.GELU(approximate="tanh"), nn.Linear(width_hidden, width_out)
    )
