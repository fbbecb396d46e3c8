"""The transformer with two streams: own parameters for actions and states, one self-attention over all tokens.

In: noisy tensors, timesteps, text keys, as `xwam.network.transformer.XwamNetwork` takes them. Out: what it gives.
Read next: `config.py` for the sizes; `baselines/video_in_training/acting.py`, which acts without the future video.

The design is the dual stream with joint self-attention of OpenWAM (arXiv 2609.07398, section 3.1): each stream projects
its tokens into the heads that both share, in every block. With `actions_see_future=False`, the mask is that of Fast-WAM
(arXiv 2603.16666): the present frame reads itself, the future frames read the video, actions and states read the
present frame and themselves.

Letters as in `xwam/network/transformer.py`; D is the width of a stream.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from baselines.joint_attention.config import TwoStreamConfig
from xwam.config import Geometry
from xwam.network.attention import KeyValue
from xwam.network.layers import MLP, Block, Runs, head_runs, timestep_code
from xwam.network.rope import Rope, rope_table
from xwam.network.transformer import Denoised, DepthBranch, TextContext, Timesteps, XwamNetwork
from xwam.text.tokens import TextTokens, read_rows

ACTION_STREAM = ("action_text_embedding", "action_time_embedding", "action_time_projection")
"""First parts of the names of the action stream's embeddings; its blocks are `blocks.N.action`."""


class Stream(NamedTuple):
    """What all blocks of one stream read in addition to its tokens.

    Attributes:
        time_BG6D: Projected timesteps, float32.
        runs: Which tokens stand at which timestep.
        rope: Rotations of its tokens.
        texts: Keys and values of the prompt in each block.
        text_bias_BN: Added to the attention logits of the prompt's tokens; None for nothing.
    """

    time_BG6D: Tensor
    runs: Runs
    rope: Rope
    texts: tuple[KeyValue, ...]
    text_bias_BN: Tensor | None


class TwoStreamBlock(Block):
    """One layer of both streams: a block for the video, and in it `action`, the block for actions and states."""

    def __init__(self, config: TwoStreamConfig) -> None:
        super().__init__(config)
        self.action = Block(config.action_stream)

    def forward(  # type: ignore[override]
        self, video_BLD: Tensor, action_BLD: Tensor, video: Stream, action: Stream, index: int, num_present: int | None
    ) -> tuple[Tensor, Tensor, KeyValue]:
        """Return the tokens of both streams after this layer, and the keys and values that the video's tokens read.

        Args:
            video_BLD: Video tokens.
            action_BLD: Tokens of actions and states.
            video: The rest of the video's stream.
            action: The rest of the other stream.
            index: Number of this block.
            num_present: Tokens of the present frame, if actions read no other video; None if all tokens read all.
        """
        query, own, modulation = self.before_attention(video_BLD, *video[:3])
        other_query, other, other_modulation = self.action.before_attention(action_BLD, *action[:3])
        if num_present is None:
            own = memory = KeyValue.cat([own, other])
            read = self.self_attn.read(query, memory)
        else:
            present = KeyValue(*(part[:, :, :num_present] for part in own))
            memory = KeyValue.cat([present, other])
            read = self._read_causally(query, own, present)
        other_read = self.action.self_attn.read(other_query, memory)
        bias = video.text_bias_BN
        video_BLD = self.after_attention(video_BLD, read, modulation, video.texts[index], bias)
        action_BLD = self.action.after_attention(action_BLD, other_read, other_modulation, action.texts[index], bias)
        return video_BLD, action_BLD, own

    def look(self, video_BLD: Tensor, video: Stream, index: int) -> tuple[Tensor, KeyValue]:
        """Return the tokens of the present frame after this layer, which read themselves alone, and their keys."""
        return super().forward(video_BLD, *video[:3], video.texts[index], video.text_bias_BN)

    def act(self, action_BLD: Tensor, action: Stream, index: int, present: KeyValue) -> Tensor:
        """Return the tokens of actions and states after this layer, which read the present frame and themselves."""
        texts, bias = action.texts[index], action.text_bias_BN
        action_BLD, _ = self.action(action_BLD, *action[:3], texts, bias, other=present)
        return action_BLD

    def _read_causally(self, query_BJLE: Tensor, video: KeyValue, present: KeyValue) -> Tensor:
        """Return the attention output of the video: the present frame reads itself, all others read the video."""
        count = present.key.shape[2]
        parts = [self.self_attn.read(query_BJLE[:, :, :count], present)]
        if query_BJLE.shape[2] > count:
            parts.append(self.self_attn.read(query_BJLE[:, :, count:], video))
        return torch.cat(parts, dim=1)


class TwoStreamNetwork(XwamNetwork):
    """X-WAM's network with a second stream; see `TwoStreamConfig`."""

    config: TwoStreamConfig

    def __init__(self, config: TwoStreamConfig) -> None:
        super().__init__(config)
        width = config.action_width
        self.blocks = nn.ModuleList(TwoStreamBlock(config) for _ in range(config.num_blocks))
        self.action_text_embedding = MLP(config.text_width, width, width)
        self.action_time_embedding = nn.Sequential(
            nn.Linear(config.time_width, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.action_time_projection = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.action_encoder = MLP(config.action_dim, width, width)
        self.action_decoder = MLP(width, width, config.action_dim)
        self.proprio_encoder = MLP(config.proprio_dim, width, width)
        self.proprio_decoder = MLP(width, width, config.proprio_dim)

    def two_stream_blocks(self) -> list[TwoStreamBlock]:
        """Return the blocks of both streams."""
        return cast(list[TwoStreamBlock], list(self.blocks))

    def encode_text(self, text: TextTokens | Tensor) -> TextContext:
        """Return prompts as both streams read them: `main` holds the video's blocks, then those of actions."""
        text = TextTokens.merged(text) if isinstance(text, Tensor) else text
        video = super().encode_text(text)
        rows = read_rows(text.to(self.device), self._attention_type())
        embedded_BND = self.action_text_embedding(rows.rows_BMW.to(self.dtype))
        action = tuple(block.action.cross_attn.key_value(embedded_BND) for block in self.two_stream_blocks())
        return replace(video, main=(*video.main, *action))

    def forward(
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
        geometry = self.geometry(video_BCTVHW, action_BKA.shape[1], proprio_BPS.shape[1])
        num_present = None if self.config.actions_see_future else geometry.tokens_per_frame
        rope = rope_table(self.config, geometry, video_BCTVHW.device)
        time_BGD, video = self.video_stream(times, text, rope, geometry)
        action = self.action_stream(times, text, rope, geometry)
        video_BLD, action_BLD = self.embed_video(video_BCTVHW), self.embed_actions(action_BKA, proprio_BPS)
        branch = DepthBranch(self, geometry, times.runs, rope, text) if depth and self.depth_blocks() else None
        for index, block in enumerate(self.two_stream_blocks()):
            before_BLD = video_BLD
            video_BLD, action_BLD, keys = block(video_BLD, action_BLD, video, action, index, num_present)
            if branch is not None:
                branch.advance(index, before_BLD, keys, video.time_BG6D)
        return Denoised(
            self._decode_video(video_BLD, video_BCTVHW, time_BGD, times),
            *self.decode_actions(action_BLD, proprio_BPS, times),
            None if branch is None else branch.finish(time_BGD),
        )

    def video_stream(
        self, times: Timesteps, text: TextContext, rope: Rope, geometry: Geometry
    ) -> tuple[Tensor, Stream]:
        """Return the embedded timesteps, B,G,D, and what the blocks of the video read."""
        time_BGD = self.time_embedding(timestep_code(times.t_BG, self.config.time_width))
        time_BG6D = self.time_projection(time_BGD).unflatten(-1, (6, -1)).float()
        count = geometry.num_video_tokens
        runs, rope = head_runs(times.runs, count), Rope(*(table[:count] for table in rope))
        texts = text.main[: self.config.num_blocks]
        return time_BGD.float(), Stream(time_BG6D, runs, rope, texts, text.bias_BN)

    def action_stream(self, times: Timesteps, text: TextContext, rope: Rope, geometry: Geometry) -> Stream:
        """Return what the blocks of actions and states read."""
        time_BGD = self.action_time_embedding(timestep_code(times.t_BG, self.config.time_width))
        time_BG6D = self.action_time_projection(time_BGD).unflatten(-1, (6, -1)).float()
        count = geometry.num_actions + geometry.num_proprios
        runs, rope = tail_runs(times.runs, count), Rope(*(table[-count:] for table in rope))
        return Stream(time_BG6D, runs, rope, text.main[self.config.num_blocks :], text.bias_BN)

    def embed_video(self, video_BCTVHW: Tensor) -> Tensor:
        """Return the tokens of the video, B,L,D float32."""
        return self._patch(video_BCTVHW).float()

    def embed_actions(self, action_BKA: Tensor, proprio_BPS: Tensor) -> Tensor:
        """Return the tokens of actions and states, B,K+P,D float32."""
        return torch.cat([self.action_encoder(action_BKA.float()), self.proprio_encoder(proprio_BPS.float())], dim=1)

    def decode_actions(self, x_BLD: Tensor, proprio_BPS: Tensor, times: Timesteps) -> tuple[Tensor, Tensor]:
        """Return the velocities of actions and states from their tokens."""
        action_BKD, proprio_BPD = x_BLD.split([x_BLD.shape[1] - proprio_BPS.shape[1], proprio_BPS.shape[1]], dim=1)
        return self.action_decoder(action_BKD), self._decode_proprio(proprio_BPD, proprio_BPS, times)


def tail_runs(runs: Runs, num_tokens: int) -> Runs:
    """Return the runs of the last `num_tokens` tokens.

    Example:
        >>> tail_runs(((0, 4), (1, 8), (2, 5)), 7)
        ((1, 2), (2, 5))
    """
    turned = head_runs(runs[::-1], num_tokens)
    return turned[::-1]
