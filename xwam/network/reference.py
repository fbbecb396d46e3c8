"""The reference network: the same algorithm as the released code computes it, to check `transformer.py` and its speed.

In: the weights of an `XwamNetwork`. Out: what that network gives, more slowly.
Read next: `tests/bench/denoise.py` and `xwam/serving/speed.py`, which time it.

It multiplies complex float64 numbers for rotary positions, computes embedding, keys and values of the whole prompt in
every step, padding included, and carries timestep and modulation of every token. Letters are those of `transformer.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from xwam.config import NUM_TRAIN_TIMESTEPS, Geometry
from xwam.network.attention import Attention, KeyValue
from xwam.network.layers import Block, Head, timestep_code
from xwam.network.rope import rope_axes, token_positions
from xwam.network.transformer import Denoised, TextContext, Timesteps, XwamNetwork
from xwam.text.tokens import TextTokens


class ReferenceNetwork:
    """A network with the weights and the interface of an `XwamNetwork`; for depth `none` and `interleaved`.

    Args:
        network: The weights; their type and device are used.
        geometry: The tokens; rotations are made once, as in the released code.
    """

    def __init__(self, network: XwamNetwork, geometry: Geometry) -> None:
        self.network, self.config = network, network.config
        self.geometry, self.timesteps = network.geometry, network.timesteps
        self.num_heads = network.config.num_heads
        self.tokens = geometry
        self.turn_LP = self._turns().to(network.patch_embedding.weight.device)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the weights."""
        return self.network.parameters()

    def encode_text(self, text: TextTokens | Tensor) -> TextContext:
        """Return the rows of all text places as they are; they are embedded in every step."""
        places_BNW = text if isinstance(text, Tensor) else text.places()
        return TextContext(embedded_BND=places_BNW.to(self.network.device), bias_BN=None, main=())

    def __call__(
        self,
        video_BCTVHW: Tensor,
        action_BKA: Tensor,
        proprio_BPS: Tensor,
        times: Timesteps,
        text: TextContext,
        *,
        depth: bool = False,
    ) -> Denoised:
        """Return velocities of all modalities; with `depth`, clean depth latents too."""
        network, dtype, g = self.network, self.network.dtype, self.tokens
        t_BL = torch.cat([times.t_BG[:, group, None].expand(-1, length) for group, length in times.runs], dim=1)
        video = self._patches(video_BCTVHW.to(dtype))
        action, proprio = network.action_encoder(action_BKA), network.proprio_encoder(proprio_BPS)
        x = torch.cat([video.float(), action, proprio], dim=1)
        e_BLD = network.time_embedding(timestep_code(t_BL, self.config.time_width))
        e_BL6D = network.time_projection(e_BLD).unflatten(2, (6, -1)).float()
        words = network.text_embedding(text.embedded_BND.to(dtype))
        count, first, branch = g.num_video_tokens, self.config.first_depth_block, None
        for index, block in enumerate(network.main_blocks()):
            before = x
            x, keys = self._block(block, x, e_BL6D, self.turn_LP, words)
            if depth and self.config.depth == "interleaved" and index >= first:
                branch = before[:, :count] if branch is None else branch
                depth_block = network.depth_blocks()[index - first]
                branch, _ = self._block(depth_block, branch, e_BL6D[:, :count], self.turn_LP[:count], words, other=keys)
        _, action, state = x.split([count, g.num_actions, g.num_proprios], dim=1)
        out = self._head(network.head, x[:, :count], e_BLD[:, :count].float())
        if self.config.video_prediction == "clean":
            sigma_BT = t_BL[:, : count : g.tokens_per_frame].clamp(min=1) / NUM_TRAIN_TIMESTEPS
            out = (video_BCTVHW - out) / sigma_BT[:, None, :, None, None, None]
        state = network.proprio_decoder(state)
        if self.config.proprio_prediction == "change":
            sigma_BP = t_BL[:, -g.num_proprios :].clamp(min=1) / NUM_TRAIN_TIMESTEPS
            state = (proprio_BPS - (proprio_BPS[:, :1] + state)) / sigma_BP[..., None]
        return Denoised(
            video_BCTVHW=out,
            action_BKA=network.action_decoder(action),
            proprio_BPS=state,
            depth_BCTVHW=None
            if branch is None
            else self._head(network.extra_heads[0], branch, e_BLD[:, :count].float()),  # type: ignore[arg-type]
        )

    def _turns(self) -> Tensor:
        """Return one complex float64 number a token and pair."""
        positions, angles = token_positions(self.config, self.tokens), []
        for axis, size in enumerate(rope_axes(self.config.head_width)):
            angles.append(positions[:, axis, None] / 10000.0 ** (torch.arange(0, size, 2).double() / size))
        angle = torch.cat(angles, dim=1)
        return torch.polar(torch.ones_like(angle), angle)

    def _patches(self, video_BCTVHW: Tensor) -> Tensor:
        patches = self.network.patch_embedding(rearrange(video_BCTVHW, "b c t v h w -> (b v) c t h w"))
        tokens = rearrange(patches, "(b v) d t h w -> b t v (h w) d", v=video_BCTVHW.shape[3])
        tokens = tokens + self.network.view_embedding.weight[: tokens.shape[2], None]
        if self.config.place_grid is not None:
            tokens = tokens + self.network.place_embedding[: tokens.shape[2]]
        return tokens.flatten(1, 3)

    def _heads(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (self.num_heads, -1))

    def _block(
        self, block: Block, x: Tensor, e_BL6D: Tensor, turn_LP: Tensor, words: Tensor, other: KeyValue | None = None
    ) -> tuple[Tensor, KeyValue]:
        """Return the tokens after a layer and the keys and values it made, B,L,J,E."""
        dtype, attention, cross = words.dtype, block.self_attn, block.cross_attn
        e = (block.modulation.unsqueeze(0) + e_BL6D).chunk(6, dim=2)
        seen = (block.norm1(x).float() * (1 + e[1].squeeze(2)) + e[0].squeeze(2)).to(dtype)
        q = rotate(self._heads(attention.norm_q(attention.q(seen))), turn_LP)
        own = KeyValue(
            rotate(self._heads(attention.norm_k(attention.k(seen))), turn_LP), self._heads(attention.v(seen))
        )
        memory = own if other is None else KeyValue(*(torch.cat(pair, dim=1) for pair in zip(own, other, strict=True)))
        x = x + attend(attention, q, memory) * e[2].squeeze(2)
        text = KeyValue(self._heads(cross.norm_k(cross.k(words))), self._heads(cross.v(words)))
        x = x + attend(cross, self._heads(cross.norm_q(cross.q(block.norm3(x).to(dtype)))), text)
        fed = block.ffn((block.norm2(x).float() * (1 + e[4].squeeze(2)) + e[3].squeeze(2)).to(dtype))
        return x + fed * e[5].squeeze(2), own

    def _head(self, head: Head, x: Tensor, e_BLD: Tensor) -> Tensor:
        e = (head.modulation.unsqueeze(0) + e_BLD.unsqueeze(2)).chunk(2, dim=2)
        seen = head.norm(x) * (1 + e[1].squeeze(2)) + e[0].squeeze(2)
        return self.network._unpatch(head.head(seen), self.tokens)


def rotate(x_BLJE: Tensor, turn_LP: Tensor) -> Tensor:
    """Return queries or keys turned in complex float64."""
    pairs = torch.view_as_complex(x_BLJE.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn_LP[:, None]).flatten(-2).to(x_BLJE.dtype)


def attend(attention: Attention, query_BLJE: Tensor, memory: KeyValue) -> Tensor:
    """Return the attention output, B,L,D."""
    q, k, v = (part.transpose(1, 2) for part in (query_BLJE, *memory))
    return attention.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
