"""DreamZero's transformer: whole clips in training, one block against a cache of observed frames at inference.

In: latents of the mosaic, actions, states, timesteps, text. Out: velocities of video and actions; keys and values of
observed frames.
Read next: `layout.py` for tokens and mask; `sampler.py` and `objective.py`, the callers.

Letters: B batch, C latent channels, T latent frames, V views (1, the mosaic), H W latent rows and columns, K actions,
N blocks (and states), A numbers in an action, S numbers in a state, L tokens, D width, G distinct timesteps.
Names of trunk and encoders are those of the official code (wan_video_dit_action_casual_chunk.py, commit ab790c1), with
`proprio_encoder` for its `state_encoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from baselines.dreamzero.attention import Attend, by_mask, of_block
from baselines.dreamzero.config import DreamZeroConfig
from baselines.dreamzero.layout import Layout, block_layout, observed_layout, rope_of, training_layout
from xwam.network.attention import KeyValue
from xwam.network.layers import MLP, Block, Head, Runs, timestep_code
from xwam.network.rope import Rope
from xwam.network.transformer import TextContext, Timesteps, Trunk, sigma_of


class Flows(NamedTuple):
    """Velocities (noise minus data) of the noisy frames, B,C,T,V,H,W, and of the actions, B,K,A."""

    video_BCTVHW: Tensor
    action_BKA: Tensor


class ClipTimes(NamedTuple):
    """Timesteps of a clip, 0 data to 1000 noise.

    Attributes:
        first_B: Of the first noisy frame.
        block_BN: Of each block's frames.
        action_BK: Of each action; None where actions have the timestep of their block.
    """

    first_B: Tensor
    block_BN: Tensor
    action_BK: Tensor | None = None


@dataclass(frozen=True, eq=False)
class FrameCache:
    """Keys and values of observed frames in every block of the network. Nothing changes it: more frames make another.

    Attributes:
        layers: Of each block, B,J,L,E each.
        num_frames: Latent frames, from the first one of the window.
    """

    layers: tuple[KeyValue, ...]
    num_frames: int

    @property
    def num_bytes(self) -> int:
        """Return the memory of all tensors."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer)

    @staticmethod
    def cat(caches: Sequence[FrameCache]) -> FrameCache:
        """Return the caches of several requests, all of as many frames, as one batch."""
        if len(caches) == 1:
            return caches[0]
        layers = zip(*(cache.layers for cache in caches), strict=True)
        joined = tuple(KeyValue(*(torch.cat(parts) for parts in zip(*layer, strict=True))) for layer in layers)
        return FrameCache(joined, caches[0].num_frames)

    def block(self, latents_per_block: int) -> int:
        """Return the block that follows these frames."""
        return (self.num_frames - 1) // latents_per_block


class DreamZeroBlock(Block):
    """A block whose self-attention reads what a layout says, and the keys and values of observed frames."""

    def forward(
        self,
        x_BLD: Tensor,
        time_BG6D: Tensor,
        runs: Runs,
        rope: Rope,
        text: KeyValue,
        text_bias_BN: Tensor | None,
        other: KeyValue | None = None,
        attend: Attend | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """Return the tokens after this layer, and this layer's own keys and values; arguments as those of `Block`."""
        query, own, modulation = self.before_attention(x_BLD, time_BG6D, runs, rope)
        memory = own if other is None else KeyValue.cat([own, other])
        if attend is None:
            read_BLD = self.self_attn.read(query, memory)
        else:
            read_BLD = self.self_attn.o(attend(query, memory).transpose(1, 2).flatten(2))
        return self.after_attention(x_BLD, read_BLD, modulation, text, text_bias_BN), own


class ActionEncoder(nn.Module):
    """W3 swish(W2 [W1 action; code of t]): actions as tokens."""

    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        self.slots = slots
        self.W1 = nn.Linear(slots, width)
        self.W2 = nn.Linear(2 * width, width)
        self.W3 = nn.Linear(width, width)

    def forward(self, action_and_code_BKX: Tensor) -> Tensor:
        """Return tokens, B,K,D, of actions that are followed by the codes of their timesteps, B,K,slots+D."""
        action, code = action_and_code_BKX.split([self.slots, action_and_code_BKX.shape[-1] - self.slots], dim=-1)
        joined = torch.cat([self.W1(action), code], dim=-1)
        return self.W3(F.silu(self.W2(joined)))  # type: ignore[no-any-return]


class DreamZeroNetwork(Trunk):
    """The whole network: `forward` for training, `remember` and `denoise` for inference."""

    config: DreamZeroConfig

    def __init__(self, config: DreamZeroConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embedding = nn.Conv3d(config.latent_channels, width, (1, *config.patch_hw), (1, *config.patch_hw))
        self.text_embedding = MLP(config.text_width, width, width)
        self.time_embedding = nn.Sequential(nn.Linear(config.time_width, width), nn.SiLU(), nn.Linear(width, width))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        if config.place_grid is not None:
            self.place_embedding = nn.Parameter(torch.empty(config.place_grid[0] * config.place_grid[1], width))
        self.action_encoder = ActionEncoder(config.action_slots, width)
        self.action_decoder = _relu_mlp(width, config.action_hidden, config.action_slots)
        self.proprio_encoder = _relu_mlp(config.state_slots, config.state_hidden, width)
        self.blocks = nn.ModuleList(DreamZeroBlock(config) for _ in range(config.num_blocks))
        self.head = Head(config, config.latent_channels)

    # ---- training

    def forward(
        self,
        clean_BCTVHW: Tensor,
        noisy_BCTVHW: Tensor,
        action_BKA: Tensor,
        proprio_BNS: Tensor,
        times: ClipTimes,
        text: TextContext,
    ) -> Flows:
        """Return the velocities of a whole clip: each block sees the clean frames before it (teacher forcing).

        Args:
            clean_BCTVHW: All latent frames, clean.
            noisy_BCTVHW: The same under noise.
            action_BKA: All actions under noise.
            proprio_BNS: The state at the start of each block, clean.
            times: Timesteps of the noise.
            text: The prompts.

        Raises:
            ValueError: If the clip does not consist of the first frame and whole blocks, or does not fit the window.
        """
        layout = training_layout(self.config, noisy_BCTVHW.shape[2], *self._grid(noisy_BCTVHW))
        return self._flows(layout, clean_BCTVHW, noisy_BCTVHW, action_BKA, proprio_BNS, times, text)

    # ---- inference

    def remember(self, latent_BCTVHW: Tensor, cache: FrameCache | None, text: TextContext) -> FrameCache:
        """Return the cache with observed frames in addition, at t = 0.

        Args:
            latent_BCTVHW: The first frame where there is no cache; else the frames of one block.
            cache: The frames before these.
            text: The prompt.

        Raises:
            ValueError: If it is another number of frames.
        """
        first, count = (0 if cache is None else cache.num_frames), latent_BCTVHW.shape[2]
        if count != (1 if cache is None else self.config.latents_per_block):
            raise ValueError(
                f"A cache begins with 1 latent frame and grows by {self.config.latents_per_block}; got {count} after "
                f"{first}."
            )
        layout = observed_layout(self.config, range(first, first + count), *self._grid(latent_BCTVHW))
        times = Timesteps(latent_BCTVHW.new_zeros(len(latent_BCTVHW), 1), ((0, layout.num_tokens),))
        _, keys, _ = self._run(layout, self._patches(latent_BCTVHW), times, text, cache, attend=None)
        layers = keys if cache is None else tuple(KeyValue.cat(pair) for pair in zip(cache.layers, keys, strict=True))
        return FrameCache(layers, first + count)

    def denoise(
        self,
        noisy_BCTVHW: Tensor,
        action_BKA: Tensor,
        proprio_BNS: Tensor,
        t_video_B: Tensor,
        t_action_B: Tensor,
        cache: FrameCache,
        text: TextContext,
    ) -> Flows:
        """Return the velocities of the block that follows the cached frames.

        Args:
            noisy_BCTVHW: Its latent frames.
            action_BKA: Its actions.
            proprio_BNS: The present state, B,1,S.
            t_video_B: Timestep of the frames.
            t_action_B: Timestep of actions and state.
            cache: The observed frames.
            text: The prompt.
        """
        block = cache.block(self.config.latents_per_block)
        layout = block_layout(self.config, block, *self._grid(noisy_BCTVHW))
        _, video, actions, states = layout.sizes
        times = Timesteps(torch.stack([t_video_B, t_action_B], dim=1), ((0, video), (1, actions + states)))
        x = self._embed(noisy_BCTVHW, action_BKA, proprio_BNS, t_action_B[:, None].expand(-1, actions))
        alone = states if self.config.state_reads == "itself" else 0
        x, _, time_BGD = self._run(layout, x, times, text, cache, attend=of_block(alone))
        return self._decode(x, layout, time_BGD, times, noisy_BCTVHW)

    # ---- both

    def _flows(
        self,
        layout: Layout,
        clean_BCTVHW: Tensor,
        noisy_BCTVHW: Tensor,
        action_BKA: Tensor,
        proprio_BNS: Tensor,
        clip: ClipTimes,
        text: TextContext,
    ) -> Flows:
        times = timesteps_of(clip, layout)
        t_action_BK = clip.action_BK
        if t_action_BK is None:
            t_action_BK = clip.block_BN.repeat_interleave(self.config.actions_per_block, dim=1)
        noisy = self._embed(noisy_BCTVHW, action_BKA, proprio_BNS, t_action_BK)
        x = torch.cat([self._patches(clean_BCTVHW), noisy], dim=1)
        x, _, time_BGD = self._run(layout, x, times, text, None, attend=by_mask(layout, x.device))
        return self._decode(x, layout, time_BGD, times, noisy_BCTVHW)

    def _run(
        self,
        layout: Layout,
        x_BLD: Tensor,
        times: Timesteps,
        text: TextContext,
        cache: FrameCache | None,
        *,
        attend: Attend | None,
    ) -> tuple[Tensor, tuple[KeyValue, ...], Tensor]:
        """Return the tokens after all blocks, the keys and values of each block, and the embedded timesteps."""
        rope = rope_of(layout, self.config.head_width, x_BLD.device)
        time_BGD = self.time_embedding(timestep_code(times.t_BG, self.config.time_width))
        time_BG6D = self.time_projection(time_BGD).unflatten(-1, (6, -1)).float()
        keys = []
        for index, block in enumerate(self.main_blocks()):
            memory = None if cache is None else cache.layers[index]
            x_BLD, own = cast(DreamZeroBlock, block)(
                x_BLD, time_BG6D, times.runs, rope, text.main[index], text.bias_BN, memory, attend
            )
            keys.append(own)
        return x_BLD, tuple(keys), time_BGD.float()

    def _embed(self, noisy_BCTVHW: Tensor, action_BKA: Tensor, proprio_BNS: Tensor, t_action_BK: Tensor) -> Tensor:
        """Return the tokens of noisy frames, actions and states, B,L,D float32."""
        config = self.config
        cosines, sines = timestep_code(t_action_BK, config.width).chunk(2, dim=-1)
        code_BKD = torch.cat([sines, cosines], dim=-1)
        action = F.pad(action_BKA.float(), [0, config.action_slots - config.action_dim])
        proprio = F.pad(proprio_BNS.float(), [0, config.state_slots - config.proprio_dim])
        tokens = (
            self._patches(noisy_BCTVHW),
            self.action_encoder(torch.cat([action, code_BKD], dim=-1)),
            self.proprio_encoder(proprio),
        )
        return torch.cat([each.float() for each in tokens], dim=1)

    def _patches(self, latent_BCTVHW: Tensor) -> Tensor:
        """Return the tokens of latent frames, B,L,D float32."""
        high, wide = self.config.patch_hw
        patches = rearrange(latent_BCTVHW, "b c t v (h p) (w q) -> b t (v h w) (c p q)", p=high, q=wide)
        weight = self.patch_embedding.weight.flatten(1)
        tokens = F.linear(patches.to(weight.dtype), weight, self.patch_embedding.bias)
        if self.config.place_grid is not None:
            tokens = tokens + self.place_embedding
        return tokens.flatten(1, 2).float()

    def _decode(self, x_BLD: Tensor, layout: Layout, time_BGD: Tensor, times: Timesteps, noisy_BCTVHW: Tensor) -> Flows:
        """Return the velocities that the tokens of noisy frames and actions stand for."""
        clean, noisy = layout.sizes[:2]
        _, video_BLD, action_BKD, _ = x_BLD.split(layout.sizes, dim=1)
        video = self._unpatch(self.head(video_BLD, time_BGD, part_of(times.runs, clean, clean + noisy)), layout)
        if self.config.video_prediction == "clean":
            sigma_BL = sigma_of(times)[:, clean : clean + noisy]
            size = self.head.head.out_features
            sigma = self._unpatch(sigma_BL[..., None].expand(-1, -1, size), layout)
            video = (noisy_BCTVHW - video) / sigma.to(video)
        return Flows(video, self.action_decoder(action_BKD)[..., : self.config.action_dim])

    def _unpatch(self, patches_BLX: Tensor, layout: Layout) -> Tensor:
        """Return latents of one patch for each token, in the order rows, columns, channels, as Wan's head has them."""
        high, wide = self.config.patch_hw
        return rearrange(
            patches_BLX,
            "b (t v h w) (p q c) -> b c t v (h p) (w q)",
            t=len(layout.noisy_frames),
            v=1,
            h=layout.rows,
            p=high,
            q=wide,
        )

    def _grid(self, latent_BCTVHW: Tensor) -> tuple[int, int]:
        """Return token rows and columns.

        Raises:
            ValueError: If latents are not those of one image, do not divide into patches, or have other positions.
        """
        views, rows, cols = latent_BCTVHW.shape[3:]
        high, wide = self.config.patch_hw
        grid = rows // high, cols // wide
        if views != 1 or rows % high or cols % wide or self.config.place_grid not in (None, grid):
            places = "any positions" if self.config.place_grid is None else f"{self.config.place_grid} positions"
            raise ValueError(
                f"Latents of {views} views with {rows}x{cols} cells do not fit a network of one mosaic image, patches "
                f"of {high}x{wide} cells and {places}."
            )
        return grid


def timesteps_of(clip: ClipTimes, layout: Layout) -> Timesteps:
    """Return the timestep of every token of a clip: 0 for clean frames, and that of the first action for a state.

    Example:
        >>> layout = training_layout(DreamZeroConfig(width=24, ffn_width=8, num_heads=2, num_blocks=1), 5, 1, 1)
        >>> timesteps_of(ClipTimes(torch.tensor([9.0]), torch.tensor([[5.0, 7.0]])), layout).t_BG.tolist()
        [[0.0, 9.0, 5.0, 7.0]]
    """
    per_frame, num_blocks = layout.tokens_per_frame, len(layout.blocks)
    columns = [torch.zeros_like(clip.first_B)[:, None], clip.first_B[:, None], clip.block_BN]
    blocks, per_block = range(2, 2 + num_blocks), layout.actions_per_block
    runs = [(0, layout.sizes[0]), (1, per_frame)]
    runs += [(column, layout.latents_per_block * per_frame) for column in blocks]
    if clip.action_BK is None:
        runs += [(column, per_block) for column in blocks] + [(column, 1) for column in blocks]
    else:
        columns.append(clip.action_BK)
        own = range(blocks.stop, blocks.stop + num_blocks * per_block)
        runs += [(column, 1) for column in own] + [(column, 1) for column in own[::per_block]]
    return Timesteps(torch.cat(columns, dim=1), tuple(runs))


def part_of(runs: Runs, start: int, stop: int) -> Runs:
    """Return the runs of the tokens from one index to another.

    Example:
        >>> part_of(((0, 4), (1, 8), (2, 5)), 3, 14)
        ((0, 1), (1, 8), (2, 2))
    """
    inner, position = [], 0
    for group, length in runs:
        overlap = min(position + length, stop) - max(position, start)
        if overlap > 0:
            inner.append((group, overlap))
        position += length
    return tuple(inner)


def _relu_mlp(width_in: int, width_hidden: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, width_hidden), nn.ReLU(), nn.Linear(width_hidden, width_out))
