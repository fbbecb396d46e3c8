"""The sizes of a network with two streams of tokens: the video's, and that of actions and states.

In: nothing. Out: frozen configurations, and numbers of parameters.
Read next: `network.py`, which is built from them; `models.py` for the models.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from xwam.config import NetworkConfig, ParameterCount


@dataclass(frozen=True, kw_only=True)
class StreamSizes:
    """Sizes of the blocks of one stream, see `xwam.network.layers.BlockSizes`."""

    width: int
    ffn_width: int
    num_heads: int
    attention_width: int
    eps: float


@dataclass(frozen=True, kw_only=True)
class TwoStreamConfig(NetworkConfig):
    """X-WAM's transformer, with parameters of their own for the tokens of actions and states.

    Every block exists twice. Norms, projections of queries, keys, values and outputs, MLP, modulation and
    cross-attention belong to one stream; self-attention reads the tokens of both. The sizes without prefix are those
    of the video stream, which has Wan's names, so that Wan's weights load into it.

    Attributes:
        action_width: Numbers in a token of an action or a state.
        action_ffn_width: Hidden width of the MLP of their blocks.
        actions_see_future: Whether the tokens of actions and states read those of the future video, and the video those
            of actions and states. If not, the future video can be left out when acting (`video_in_training`).
    """

    action_width: int
    action_ffn_width: int
    actions_see_future: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth not in ("interleaved", "none"):
            raise ValueError(
                f"A network with two streams predicts depth in a branch of its own ('interleaved') or not at all "
                f"('none'), got depth '{self.depth}'."
            )

    @property
    def action_stream(self) -> StreamSizes:
        """Return the sizes of the blocks of actions and states, whose heads are those of the video."""
        return StreamSizes(
            width=self.action_width,
            ffn_width=self.action_ffn_width,
            num_heads=self.num_heads,
            attention_width=self.attention_width,
            eps=self.eps,
        )


def two_streams(
    base: NetworkConfig, *, action_width: int, action_ffn_width: int, actions_see_future: bool = True
) -> TwoStreamConfig:
    """Return a configuration whose video stream is a network of one stream."""
    sizes = {field.name: getattr(base, field.name) for field in fields(NetworkConfig)}
    return TwoStreamConfig(
        **sizes, action_width=action_width, action_ffn_width=action_ffn_width, actions_see_future=actions_see_future
    )


def count_two_streams(config: TwoStreamConfig) -> ParameterCount:
    """Return the numbers of parameters by origin, without building the network.

    The action stream, with its embeddings of timesteps and text, counts as `actions_and_states`.
    """
    d, heads, patch = config.width, config.attention_width, config.patch_hw[0] * config.patch_hw[1]
    block = _block(d, config.ffn_width, heads)
    head = _linear(d, config.latent_channels * patch) + 2 * d
    wan = _linear(config.latent_channels * patch, d) + _text_and_time(config, d) + config.num_blocks * block + head
    a = config.action_width
    ends = [_linear(size, a) + 2 * _linear(a, a) + _linear(a, size) for size in (config.action_dim, config.proprio_dim)]
    stream = _text_and_time(config, a) + config.num_blocks * _block(a, config.action_ffn_width, heads)
    places = 1 + (0 if config.place_grid is None else config.place_grid[0] * config.place_grid[1])
    depth = config.num_depth_blocks * block + head if config.depth == "interleaved" else 0
    return ParameterCount(wan, config.num_views * places * d, sum(ends) + stream, depth)


def _text_and_time(config: NetworkConfig, width: int) -> int:
    """Return the parameters of the embeddings of text and timesteps for tokens of a width."""
    text = _linear(config.text_width, width) + _linear(width, width)
    return text + _linear(config.time_width, width) + _linear(width, width) + _linear(width, 6 * width)


def _block(width: int, ffn_width: int, heads: int) -> int:
    """Return the parameters of a block whose attention is `heads` wide."""
    attention = 3 * _linear(width, heads) + _linear(heads, width) + 2 * heads
    return 2 * attention + _linear(width, ffn_width) + _linear(ffn_width, width) + 2 * width + 6 * width


def _linear(width_in: int, width_out: int) -> int:
    return (width_in + 1) * width_out
