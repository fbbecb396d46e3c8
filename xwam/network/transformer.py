"""The transformer: one pass over noisy video, actions and states, with the depth branch on or off.

In: noisy tensors, the timestep of every run of tokens, text keys. Out: velocities, and clean depth latents.
Read next: `layers.py` for its parts; `xwam/flow/sampler.py`, which calls it step after step.

Letters: B batch, C latent channels, T latent frames, V views, H W latent rows and columns, K actions, P states,
A numbers in an action, S numbers in a state, L tokens, N text tokens, D width, G distinct timesteps, J heads,
E width of a head. Module names are those of the released weights, so that a checkpoint needs no renaming.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from xwam.config import NUM_TRAIN_TIMESTEPS, DepthMode, Geometry, NetworkConfig
from xwam.network.attention import Attention, KeyValue
from xwam.network.layers import MLP, Block, Head, Runs, group_of_token, head_runs, timestep_code
from xwam.network.processor import functional
from xwam.network.rope import Rope, rope_table
from xwam.text.tokens import TextTokens, read_rows


class Denoised(NamedTuple):
    """The output of one pass: velocities (noise minus data) and, with the depth branch, clean depth latents."""

    video_BCTVHW: Tensor
    action_BKA: Tensor
    proprio_BPS: Tensor
    depth_BCTVHW: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False)
class TextContext:
    """A prompt as the blocks read it; computed once for all denoising steps of a request.

    Text places with equal rows have the same key and value. They are read once, with the logarithm of their number
    added to the attention logits, which is the same sum with fewer terms.

    Attributes:
        embedded_BND: Distinct text rows after the text MLP.
        bias_BN: Added to the attention logits of each row; None if each row is one place.
        main: Keys and values of each main block.
        depth: Keys and values of each depth block; empty until depth is first needed.
    """

    embedded_BND: Tensor
    bias_BN: Tensor | None
    main: tuple[KeyValue, ...]
    depth: tuple[KeyValue, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Return the number of text tokens."""
        return self.embedded_BND.shape[1]

    @property
    def num_bytes(self) -> int:
        """Return the memory of all tensors."""
        layers = [tensor for layer in (*self.main, *self.depth) for tensor in layer]
        bias = [] if self.bias_BN is None else [self.bias_BN]
        return sum(tensor.nbytes for tensor in (self.embedded_BND, *layers, *bias))

    def map(self, change: Callable[[Tensor], Tensor]) -> TextContext:
        """Return the context with a function applied to every tensor."""
        return TextContext(
            embedded_BND=change(self.embedded_BND),
            bias_BN=None if self.bias_BN is None else change(self.bias_BN),
            main=tuple(KeyValue(*map(change, layer)) for layer in self.main),
            depth=tuple(KeyValue(*map(change, layer)) for layer in self.depth),
        )

    def filled(self, num_tokens: int) -> TextContext:
        """Return the context with ignored tokens up to a number of tokens; each token has a bias then."""
        missing = num_tokens - self.num_tokens

        def fill(tensor: Tensor, axis: int, value: float = 0.0) -> Tensor:
            return F.pad(tensor, [0, 0] * (tensor.dim() - 1 - axis) + [0, missing], value=value) if missing else tensor

        def fill_all(layers: tuple[KeyValue, ...]) -> tuple[KeyValue, ...]:
            return tuple(KeyValue(*(fill(part, 2) for part in layer)) for layer in layers)

        return TextContext(
            embedded_BND=fill(self.embedded_BND, 1),
            bias_BN=fill(_bias(self), 1, -math.inf),
            main=fill_all(self.main),
            depth=fill_all(self.depth),
        )

    @staticmethod
    def cat(contexts: Sequence[TextContext]) -> TextContext:
        """Return the contexts of several requests as one batch; shorter ones are padded with ignored tokens."""
        if len(contexts) == 1:
            return contexts[0]
        longest = max(context.num_tokens for context in contexts)
        plain = all(context.bias_BN is None and context.num_tokens == longest for context in contexts)
        filled = list(contexts) if plain else [context.filled(longest) for context in contexts]

        def join(layers: Sequence[tuple[KeyValue, ...]]) -> tuple[KeyValue, ...]:
            return tuple(
                KeyValue(*(torch.cat(parts) for parts in zip(*layer, strict=True)))
                for layer in zip(*layers, strict=True)
            )

        return TextContext(
            embedded_BND=torch.cat([context.embedded_BND for context in filled]),
            bias_BN=None if plain else torch.cat([_bias(context) for context in filled]),
            main=join([context.main for context in filled]),
            depth=join([context.depth for context in filled]) if all(c.depth for c in contexts) else (),
        )


def _bias(context: TextContext) -> Tensor:
    """Return the bias of a context, or zeros if it has none."""
    zeros_BN = torch.zeros(context.embedded_BND.shape[:2], device=context.embedded_BND.device)
    return zeros_BN if context.bias_BN is None else context.bias_BN


def context_bytes(config: NetworkConfig, num_rows: int, dtype: torch.dtype) -> int:
    """Return the memory of a prompt's `TextContext` with the depth branch.

    Args:
        config: The network.
        num_rows: Rows that attention reads (`xwam.text.tokens.read_rows`).
        dtype: Type of the network's matrices.

    Example:
        >>> from xwam.config import WAN22_5B
        >>> context_bytes(WAN22_5B, 512, torch.bfloat16) // 2**20
        243
    """
    num_blocks = config.num_blocks + (config.num_depth_blocks if config.depth == "interleaved" else 0)
    return num_rows * (config.width * (1 + 2 * num_blocks) * dtype.itemsize + 4)


@dataclass(frozen=True, eq=False)
class Timesteps:
    """The distinct timesteps of each request, and the runs of tokens that have them.

    Work for each timestep is done G times and not L times.

    Attributes:
        t_BG: Timesteps, 0 data to 1000 noise.
        runs: (column of `t_BG`, number of tokens) along the token sequence.
    """

    t_BG: Tensor
    runs: Runs


def free_timesteps(t_video_BT: Tensor, t_action_BK: Tensor, t_proprio_BP: Tensor, geometry: Geometry) -> Timesteps:
    """Return timesteps that differ from latent frame to latent frame, action to action and state to state."""
    t_BG = torch.cat([t_video_BT, t_action_BK, t_proprio_BP], dim=1)
    lengths = [geometry.tokens_per_frame] * geometry.num_frames + [1] * (t_BG.shape[1] - geometry.num_frames)
    return Timesteps(t_BG, tuple(enumerate(lengths)))


def shared_timesteps(
    t_video_B: Tensor, t_action_B: Tensor, geometry: Geometry, depth: DepthMode = "interleaved"
) -> Timesteps:
    """Return the timesteps of the usual case: first latent frame and first state clean, all others at two levels.

    Args:
        t_video_B: Timestep of the video beyond its first latent frame.
        t_action_B: Timestep of all actions and of the states beyond the first.
        geometry: The tokens.
        depth: Depth is never seen, so where it is denoised it stands at the video's level in the first latent frame
            too. With channel concatenation that frame's tokens hold clean video and noisy depth, and get the level
            of their noisy half.
    """
    frame, clean, video, action = geometry.tokens_per_frame, 0, 1, 2
    first = video if depth == "channel" else clean
    depth_tokens = geometry.num_video_tokens if depth == "sequence" else 0
    runs = [(first, frame), (video, geometry.num_video_tokens - frame + depth_tokens)]
    runs += [(action, geometry.num_actions), (clean, 1), (action, geometry.num_proprios - 1)]
    t_BG = torch.stack([torch.zeros_like(t_video_B), t_video_B, t_action_B], dim=1)
    return Timesteps(t_BG, tuple(run for run in runs if run[1]))


def with_clean_actions(times: Timesteps, geometry: Geometry, num_clean: int | Sequence[int]) -> Timesteps:
    """Return the timesteps with the first actions clean while the others are noisy: at 0.

    Args:
        times: From `shared_timesteps`; the last tokens are the actions in one run, and the states.
        geometry: The tokens.
        num_clean: How many actions are clean: in all samples, or in each.
    """
    after, place = 0, len(times.runs)
    while after < geometry.num_proprios:
        place -= 1
        after += times.runs[place][1]
    group, length = times.runs[place - 1]
    if isinstance(num_clean, int):
        column_BG, runs = torch.zeros_like(times.t_BG[:, :1]), [(times.t_BG.shape[1], num_clean)]
        longest = num_clean
    else:  # a timestep of its own for each action that is clean in some samples only
        longest = max(num_clean)
        counts_B, index_K = torch.tensor(num_clean), torch.arange(longest)
        is_clean_BK = (index_K < counts_B[:, None]).to(times.t_BG.device)
        column_BG = times.t_BG[:, group, None].masked_fill(is_clean_BK, 0.0)
        runs = [(times.t_BG.shape[1] + index, 1) for index in range(longest)]
    runs = [*times.runs[: place - 1], *runs, (group, length - longest), *times.runs[place:]]
    return Timesteps(torch.cat([times.t_BG, column_BG], dim=1), tuple(run for run in runs if run[1]))


def sigma_of(times: Timesteps) -> Tensor:
    """Return the noise level of each token, B,L, at least that of one timestep: clean tokens are divided by it too.

    Example:
        >>> sigma_of(Timesteps(torch.tensor([[0.0, 500.0]]), ((0, 1), (1, 2)))).tolist()
        [[0.0010000000474974513, 0.5, 0.5]]
    """
    if functional() or times.t_BG.is_cuda:
        t_BL = torch.cat([times.t_BG[:, group, None].expand(-1, length) for group, length in times.runs], dim=1)
    else:
        t_BL = times.t_BG.index_select(1, group_of_token(times.runs))
    return t_BL.clamp(min=1) / NUM_TRAIN_TIMESTEPS


EXACT_MODULES = (
    "time_embedding",
    "time_projection",
    "action_encoder",
    "action_decoder",
    "proprio_encoder",
    "proprio_decoder",
    "head.head",
    "extra_heads.0.head",
    "action_time_embedding",
    "action_time_projection",
)
"""Modules that compute in float32 whatever the type of the other matrices, as in the release (`modules/wan_model.py`,
commit 72cfb86), whose autocast regions are these; and the timesteps of networks whose actions have their own."""


def is_exact(name: str) -> bool:
    """Return whether a parameter stays float32 whatever the type of the other matrices.

    Modulation and affine norms are added to or multiplied with float32 numbers.

    Example:
        >>> is_exact("extra_heads.0.head.weight"), is_exact("blocks.0.ffn.0.weight")
        (True, False)
    """
    return name.startswith(tuple(f"{module}." for module in EXACT_MODULES)) or "modulation" in name or ".norm3." in name


AnyTrunk = TypeVar("AnyTrunk", bound="Trunk")


class Trunk(nn.Module):
    """What every network on Wan's video transformer has: its weights' types, its blocks, prompts as they read them.

    A subclass builds `patch_embedding`, `text_embedding` and `blocks`, and calls the blocks.
    """

    config: NetworkConfig
    patch_embedding: nn.Conv3d
    text_embedding: nn.Sequential
    blocks: nn.ModuleList

    @property
    def dtype(self) -> torch.dtype:
        """Return the type in which matrices are multiplied; residual stream and modulation stay float32."""
        return self.patch_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return self.patch_embedding.weight.device

    def exact_modules(self) -> list[nn.Module]:
        """Return the modules of this network that compute in float32, see `EXACT_MODULES`."""
        return [module for name, module in self.named_modules() if name in EXACT_MODULES]

    def cast(self: AnyTrunk, dtype: torch.dtype) -> AnyTrunk:
        """Change the type of the matrices in place; what `is_exact` names becomes float32."""
        for name, weight in self.named_parameters():
            weight.data = weight.data.to(torch.float32 if is_exact(name) else dtype)
        return self

    def join_projections(self: AnyTrunk) -> AnyTrunk:
        """Let one product make queries, keys and values, see `Attention.join`; for inference on a CPU."""
        for module in self.modules():
            if isinstance(module, Attention):
                module.join()
        return self

    def main_blocks(self) -> list[Block]:
        """Return the blocks of the main branch."""
        return cast(list[Block], list(self.blocks))

    def encode_text(self, text: TextTokens | Tensor) -> TextContext:
        """Return prompts as the main blocks read them.

        Args:
            text: The text of prompts, or the rows of all their places, B,N,W, which are then merged here.

        Raises:
            ValueError: If a prompt does not have `text_len` places of `text_width` numbers.
        """
        text = TextTokens.merged(text) if isinstance(text, Tensor) else text
        sizes = {(num_places, text.rows_BMW.shape[2]) for num_places in text.num_places}
        if sizes != {(self.config.text_len, self.config.text_width)}:
            raise ValueError(
                f"Each prompt must have {self.config.text_len} text places of {self.config.text_width} numbers, got "
                f"{', '.join(f'{places} of {width}' for places, width in sorted(sizes))}."
            )
        rows = read_rows(text.to(self.device), self._attention_type())
        embedded = self.text_embedding(rows.rows_BMW.to(self.dtype))
        return TextContext(
            embedded_BND=embedded,
            bias_BN=rows.logits_BM,
            main=tuple(block.cross_attn.key_value(embedded) for block in self.main_blocks()),
        )

    def with_depth_text(self, text: TextContext) -> TextContext:
        """Return the context with keys and values of the depth blocks; unchanged in a network without any."""
        return text

    def _attention_type(self) -> torch.dtype:
        """Return the type in which attention takes its logits: autocast's where it is on."""
        kind = self.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.dtype


class XwamNetwork(Trunk):
    """The whole network; see `forward`."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        channels = config.latent_channels * (2 if config.depth == "channel" else 1)
        self.patch_embedding = nn.Conv3d(channels, width, (1, *config.patch_hw), (1, *config.patch_hw))
        self.text_embedding = MLP(config.text_width, width, width)
        self.time_embedding = nn.Sequential(nn.Linear(config.time_width, width), nn.SiLU(), nn.Linear(width, width))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.view_embedding = nn.Embedding(config.num_views, width)
        if config.place_grid is not None:
            rows, cols = config.place_grid
            self.place_embedding = nn.Parameter(torch.empty(config.num_views, rows * cols, width))
        self.action_encoder = MLP(config.action_dim, width, width)
        self.action_decoder = MLP(width, width, config.action_dim)
        self.proprio_encoder = MLP(config.proprio_dim, width, width)
        self.proprio_decoder = MLP(width, width, config.proprio_dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.head = Head(config, channels)
        if config.depth == "interleaved":
            blocks = nn.ModuleList(Block(config) for _ in range(config.num_depth_blocks))
            self.extra_blocks = nn.ModuleList([blocks])
            self.extra_heads = nn.ModuleList([Head(config, channels)])
        if config.depth == "sequence":
            self.depth_embedding = nn.Parameter(torch.zeros(width))

    def depth_blocks(self) -> list[Block]:
        """Return the blocks of the depth branch, one for each of the last main blocks."""
        return cast(list[Block], list(self.extra_blocks[0].children())) if self.config.depth == "interleaved" else []

    def geometry(self, video_BCTVHW: Tensor, num_actions: int, num_proprios: int) -> Geometry:
        """Return the numbers of tokens for tensors of these sizes.

        Raises:
            ValueError: If rows or columns do not divide into patches, or there are more views or other positions than
                embeddings.
        """
        *_, frames, views, rows, cols = video_BCTVHW.shape
        high, wide = self.config.patch_hw
        if rows % high or cols % wide or views > self.config.num_views:
            raise ValueError(
                f"Latents of {views} views with {rows}x{cols} cells do not fit a network of {self.config.num_views} "
                f"views and patches of {high}x{wide} cells."
            )
        if self.config.place_grid not in (None, (rows // high, cols // wide)):
            raise ValueError(
                f"Latents of {rows}x{cols} cells make {rows // high}x{cols // wide} tokens a view, the network has "
                f"embeddings for {self.config.place_grid[0]}x{self.config.place_grid[1]} positions."
            )
        return Geometry(
            num_frames=frames,
            num_views=views,
            rows=rows // high,
            cols=cols // wide,
            num_actions=num_actions,
            num_proprios=num_proprios,
        )

    def timesteps(self, t_video_B: Tensor, t_action_B: Tensor, geometry: Geometry) -> Timesteps:
        """Return the timesteps of the usual case, see `shared_timesteps`, for the depth mode of this network."""
        return shared_timesteps(t_video_B, t_action_B, geometry, self.config.depth)

    def with_depth_text(self, text: TextContext) -> TextContext:
        """Return the context with keys and values of the depth blocks."""
        if text.depth or self.config.depth != "interleaved":
            return text
        depth = tuple(block.cross_attn.key_value(text.embedded_BND) for block in self.depth_blocks())
        return replace(text, depth=depth)

    def forward(
        self,
        video_BCTVHW: Float[Tensor, "b c t v h w"],
        action_BKA: Float[Tensor, "b k a"],
        proprio_BPS: Float[Tensor, "b p s"],
        times: Timesteps,
        text: TextContext,
        *,
        depth: bool = False,
    ) -> Denoised:
        """Return velocities of all modalities; with `depth`, clean depth latents too.

        The main branch reads nothing of the depth branch: video, actions and states do not depend on `depth`.
        """
        return self.whole_pass(video_BCTVHW, action_BKA, proprio_BPS, times, text, depth=depth)

    def whole_pass(
        self,
        video_BCTVHW: Tensor,
        action_BKA: Tensor,
        proprio_BPS: Tensor,
        times: Timesteps,
        text: TextContext,
        *,
        depth: bool = False,
        video_keys: list[KeyValue] | None = None,
    ) -> Denoised:
        """Return what `forward` gives; keys and values of the video in each block are added to `video_keys`."""
        geometry = self.geometry(video_BCTVHW, action_BKA.shape[1], proprio_BPS.shape[1])
        runs, rope = times.runs, self._rope(geometry, video_BCTVHW.device)
        x_BLD = self._embed(video_BCTVHW, action_BKA, proprio_BPS)
        code_BGF = timestep_code(times.t_BG, self.config.time_width)
        time_BGD = self.time_embedding(code_BGF)
        time_BG6D = self.time_projection(time_BGD).unflatten(-1, (6, -1)).float()
        time_BGD = time_BGD.float()
        branch = DepthBranch(self, geometry, runs, rope, text) if depth and self.depth_blocks() else None
        for index, block in enumerate(self.main_blocks()):
            before_BLD = x_BLD
            x_BLD, keys = block(x_BLD, time_BG6D, runs, rope, text.main[index], text.bias_BN)
            if branch is not None:
                branch.advance(index, before_BLD, keys, time_BG6D)
            if video_keys is not None:
                num_video = keys.key.shape[2] - geometry.num_actions - geometry.num_proprios
                video_keys.append(KeyValue(*(part[:, :, :num_video] for part in keys)))
        video, action_BKD, proprio_BPD = self._split(x_BLD, geometry)
        return Denoised(
            video_BCTVHW=self._decode_video(video, video_BCTVHW, time_BGD, times),
            action_BKA=self.action_decoder(action_BKD),
            proprio_BPS=self._decode_proprio(proprio_BPD, proprio_BPS, times),
            depth_BCTVHW=None if branch is None else branch.finish(time_BGD),
        )

    def _decode_video(self, x_BLD: Tensor, video_BCTVHW: Tensor, time_BGD: Tensor, times: Timesteps) -> Tensor:
        """Return the velocities of the video from its tokens."""
        geometry = self.geometry(video_BCTVHW, 0, 0)
        out = self._unpatch(self.head(x_BLD, time_BGD, head_runs(times.runs, x_BLD.shape[1])), geometry)
        if self.config.video_prediction == "clean":
            out = self._over_sigma(video_BCTVHW - out, times, geometry)
        return out

    def _decode_proprio(self, x_BPD: Tensor, proprio_BPS: Tensor, times: Timesteps) -> Tensor:
        """Return the velocities of the states from their tokens, which are the last ones."""
        proprio = self.proprio_decoder(x_BPD)
        if self.config.proprio_prediction == "change":
            sigma_BP = sigma_of(times)[:, -proprio.shape[1] :]
            proprio = (proprio_BPS - proprio_BPS[:, :1] - proprio) / sigma_BP[..., None].to(proprio)
        return proprio  # type: ignore[no-any-return]

    def _rope(self, geometry: Geometry, device: torch.device) -> Rope:
        """Return the rotations of all tokens."""
        return rope_table(self.config, geometry, device)

    def _embed(self, video_BCTVHW: Tensor, action_BKA: Tensor, proprio_BPS: Tensor) -> Tensor:
        """Return all tokens, B,L,D float32."""
        video = self._patch(video_BCTVHW) if self.config.depth != "sequence" else self._patch_twice(video_BCTVHW)
        action, proprio = self.action_encoder(action_BKA.float()), self.proprio_encoder(proprio_BPS.float())
        return torch.cat([video.float(), action.float(), proprio.float()], dim=1)

    def _patch(self, video_BCTVHW: Tensor) -> Tensor:
        high, wide = self.config.patch_hw
        patches = rearrange(video_BCTVHW, "b c t v (h p) (w q) -> b t v (h w) (c p q)", p=high, q=wide)
        weight = self.patch_embedding.weight.flatten(1)
        tokens = F.linear(patches.to(weight.dtype), weight, self.patch_embedding.bias)
        num_views = tokens.shape[2]
        tokens = tokens + self.view_embedding.weight[:num_views, None]
        if self.config.place_grid is not None:
            tokens = tokens + self.place_embedding[:num_views]
        return tokens.flatten(1, 3)

    def _patch_twice(self, video_BCTVHW: Tensor) -> Tensor:
        """Return video tokens, then as many depth tokens: sequence concatenation."""
        rgb, depth = video_BCTVHW.chunk(2, dim=1)
        return torch.cat([self._patch(rgb), self._patch(depth) + self.depth_embedding], dim=1)

    def _split(self, x_BLD: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor, Tensor]:
        tail = geometry.num_actions + geometry.num_proprios
        video, action, proprio = x_BLD.split(
            [x_BLD.shape[1] - tail, geometry.num_actions, geometry.num_proprios], dim=1
        )
        return video, action, proprio

    def _over_sigma(self, change_BCTVHW: Tensor, times: Timesteps, geometry: Geometry) -> Tensor:
        """Return latents divided by the noise level of their latent frame, at least that of one timestep."""
        sequences = 2 if self.config.depth == "sequence" else 1
        num_tokens = sequences * geometry.num_video_tokens
        sigma_BMT = sigma_of(times)[:, : num_tokens : geometry.tokens_per_frame].unflatten(1, (sequences, -1))
        parts = change_BCTVHW.unflatten(1, (sequences, -1))
        return (parts / sigma_BMT[:, :, None, :, None, None, None].to(parts)).flatten(1, 2)

    def _unpatch(self, patches_BLX: Tensor, geometry: Geometry) -> Tensor:
        """Return latents from one patch for each token, in the order rows, columns, channels."""
        high, wide = self.config.patch_hw
        return rearrange(
            patches_BLX,
            "b (m t v h w) (p q c) -> b (m c) t v (h p) (w q)",
            t=geometry.num_frames,
            v=geometry.num_views,
            h=geometry.rows,
            w=geometry.cols,
            p=high,
            q=wide,
        )


class DepthBranch:
    """The running state of the interleaved depth branch during one pass (equation 3)."""

    def __init__(
        self,
        network: XwamNetwork,
        geometry: Geometry,
        runs: Runs,
        rope: Rope,
        text: TextContext,
    ) -> None:
        self.network, self.geometry = network, geometry
        self.num_tokens = geometry.num_video_tokens
        self.runs = head_runs(runs, self.num_tokens)
        self.rope = Rope(*(table[: self.num_tokens] for table in rope))
        self.text = network.with_depth_text(text)
        self.x_BLD: Tensor | None = None

    def advance(self, index: int, main_BLD: Tensor, main_keys: KeyValue, time_BG6D: Tensor) -> None:
        """Run the depth block of main block `index`; it also reads the keys of that block."""
        depth_idx = index - self.network.config.first_depth_block
        if depth_idx < 0:
            return
        x_BLD = main_BLD[:, : self.num_tokens] if self.x_BLD is None else self.x_BLD
        block = self.network.depth_blocks()[depth_idx]
        self.x_BLD, _ = block(
            x_BLD, time_BG6D, self.runs, self.rope, self.text.depth[depth_idx], self.text.bias_BN, other=main_keys
        )

    def finish(self, time_BGD: Tensor) -> Tensor | None:
        """Return the clean depth latents, or None for a network without depth blocks."""
        if self.x_BLD is None:
            return None
        return self.network._unpatch(self.network.extra_heads[0](self.x_BLD, time_BGD, self.runs), self.geometry)
