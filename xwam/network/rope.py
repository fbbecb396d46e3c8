"""Rotary positions: where each token stands in time, row and column, and how its queries and keys turn.

In: the tokens of a geometry. Out: rotations; queries and keys after them.
Read next: `attention.py`, which turns queries and keys.

Letters: B batch, L tokens, J heads, E width of a head, P pairs of a head.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from xwam.config import Geometry, NetworkConfig
from xwam.network.processor import functional

ROPE_THETA = 10000.0


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
    if functional():
        turned = torch.stack([even * rope.cos_L1P - odd * rope.sin_L1P, odd * rope.cos_L1P + even * rope.sin_L1P], -1)
    else:  # the same without a temporary for each product, and laid out head by head, as attention reads it
        turned = torch.empty_like(pairs.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
        torch.addcmul(even * rope.cos_L1P, odd, rope.sin_L1P, value=-1, out=turned[..., 0])
        torch.addcmul(odd * rope.cos_L1P, even, rope.sin_L1P, out=turned[..., 1])
    return turned.flatten(-2).to(x_BLJE.dtype)


def turn_pairs(x_BL2JE: Tensor, rope: Rope) -> Tensor:
    """Return queries and keys, float32, turned by their positions as complex numbers, and laid out as 2,B,J,L,E.

    One pass over both, for inference on a CPU; it equals `rotate` up to rounding.
    """
    pairs = torch.view_as_complex(x_BL2JE.unflatten(-1, (-1, 2)))
    turned = torch.empty_like(pairs.permute(2, 0, 3, 1, 4), memory_format=torch.contiguous_format)
    torch.mul(pairs, torch.complex(*rope)[:, None], out=turned.permute(1, 3, 0, 2, 4))
    return torch.view_as_real(turned).flatten(-2)
