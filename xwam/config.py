"""Every size of the model, from a nano one to the released 5B, as data.

In: nothing, or the settings that a released checkpoint carries. Out: frozen configurations.
Read next: `network/transformer.py`, which is built from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from evalkit.dataset.depth_video import DepthRange

DepthMode = Literal["interleaved", "none", "sequence", "channel"]
VideoPrediction = Literal["velocity", "clean"]
ProprioPrediction = Literal["velocity", "change"]

SIGMA_SHIFT = 5.0
"""Shift of both noise levels towards 1: sigma = 5 u / (1 + 4 u), in training and at inference."""

NUM_TRAIN_TIMESTEPS = 1000
"""The network sees a noise level as a timestep between 0 (data) and 1000 (noise)."""

PRECISIONS = ("float32", "bfloat16", "float16")
"""Types of the network's matrices."""

LEAST_STATE_STEPS = 16
"""Fewest passes to predict the states that follow from given actions. Given actions carry the noise of the states, so
in a single pass they would be pure noise, and the states could not depend on them."""

LATENT_STRIDES = (4, 16, 16)
"""Frames, rows and columns of one latent cell; the first frame has a latent frame of its own."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The transformer.

    Attributes:
        width: Numbers in a token.
        ffn_width: Hidden width of a block's MLP.
        num_heads: Attention heads; `width / num_heads` is even.
        num_blocks: Blocks of the main branch.
        num_depth_blocks: Last blocks that have a copy in the depth branch; only read with `depth="interleaved"`.
        num_views: Cameras, each with a learned embedding.
        latent_channels: Channels of a latent cell.
        patch_hw: Latent rows and columns in a token.
        text_width: Width of a text token.
        text_len: Text places of a prompt, all of which the network reads, those behind its words too.
        time_width: Width of the sinusoidal code of a timestep.
        action_dim: Numbers in an action.
        proprio_dim: Numbers in a state.
        actions_per_frame: Actions between two predicted frames.
        frames_per_latent: Predicted frames in a latent frame.
        eps: Added in every normalisation.
        depth: How depth is predicted; all but the first are the alternatives of the ablation.
        place_grid: Token rows and columns of a view with a learned embedding for each position; None in every released
            model. Rotary positions alone localise objects only after long training.
        video_prediction: Output of the last layer for video: velocities as in every released model, or `clean` latents,
            from which the velocities are computed. A velocity contains all of the noise, which does not pass through a
            token with fewer numbers than its patch (Li and He 2025, arXiv 2511.13720).
        proprio_prediction: Output of the last layer for states: velocities as in every released model, or the `change`
            from the present state, from which the velocities are computed. A velocity contains noise of 1, which hides
            the millimetres of a state.
    """

    width: int
    ffn_width: int
    num_heads: int
    num_blocks: int
    num_depth_blocks: int
    num_views: int = 3
    latent_channels: int = 48
    patch_hw: tuple[int, int] = (2, 2)
    text_width: int = 4096
    text_len: int = 512
    time_width: int = 256
    action_dim: int = 14
    proprio_dim: int = 16
    actions_per_frame: int = 4
    frames_per_latent: int = 4
    eps: float = 1e-6
    depth: DepthMode = "interleaved"
    place_grid: tuple[int, int] | None = None
    video_prediction: VideoPrediction = "velocity"
    proprio_prediction: ProprioPrediction = "velocity"

    def __post_init__(self) -> None:
        if self.width % self.num_heads or self.head_width % 2:
            raise ValueError(f"width {self.width} must be an even number of times num_heads {self.num_heads}.")
        if not 0 <= self.num_depth_blocks <= self.num_blocks:
            raise ValueError(f"num_depth_blocks {self.num_depth_blocks} must lie in 0..{self.num_blocks} (num_blocks).")

    @property
    def head_width(self) -> int:
        """Return the numbers in one attention head."""
        return self.width // self.num_heads

    @property
    def attention_width(self) -> int:
        """Return the numbers in all attention heads together."""
        return self.width

    @property
    def first_depth_block(self) -> int:
        """Return the index of the first main block that has a copy in the depth branch."""
        return self.num_blocks - self.num_depth_blocks

    @property
    def state_channels(self) -> int:
        """Return the denoised channels: video, and as many of depth in the two modes that denoise depth."""
        return self.latent_channels * (2 if self.depth in ("sequence", "channel") else 1)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Numbers of tokens, in the order video (frame, view, row, column), actions, states.

    Attributes:
        num_frames: Latent frames.
        num_views: Views.
        rows: Token rows of a view.
        cols: Token columns of a view.
        num_actions: Actions.
        num_proprios: States, including the present one.
    """

    num_frames: int
    num_views: int
    rows: int
    cols: int
    num_actions: int
    num_proprios: int

    @property
    def tokens_per_frame(self) -> int:
        """Return the video tokens of one latent frame."""
        return self.num_views * self.rows * self.cols

    @property
    def num_video_tokens(self) -> int:
        """Return the video tokens.

        Example:
            >>> RELEASE_GEOMETRY.num_video_tokens, RELEASE_GEOMETRY.num_tokens
            (720, 761)
        """
        return self.num_frames * self.tokens_per_frame

    @property
    def num_tokens(self) -> int:
        """Return all tokens."""
        return self.num_video_tokens + self.num_actions + self.num_proprios


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """The codec between frames and latents: `patch_dct` needs no weights, `wan22` is the VAE of Wan2.2.

    Attributes:
        kind: The codec.
        warp_widths: Channels of the pixel decoder (`xwam.nano.pixel_decoder`) in the checkpoint; None without one.
        mosaic: Rows and columns of a grid whose tiles are the views; the codec encodes the grid as one image
            (`xwam.codecs.mosaic`). None to encode each view by itself.
    """

    kind: Literal["patch_dct", "wan22"] = "patch_dct"
    warp_widths: tuple[int, ...] | None = None
    mosaic: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.warp_widths is not None and len(self.warp_widths) != 4:
            raise ValueError(f"warp_widths must be four numbers, got {self.warp_widths}.")

    @property
    def builds_on_first_frame(self) -> bool:
        """Return whether decoding starts from the current frame, to which latents add changes."""
        return self.kind == "patch_dct"


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text encoder: `hashed` needs no weights, `umt5` is the encoder of Wan2.2."""

    kind: Literal["hashed", "umt5"] = "hashed"


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Lowest and highest value of every number of a state and of an action; they become -1 and 1.

    Attributes:
        proprio_low: 16 numbers; -1 for quaternions, which stay as they are.
        proprio_high: 16 numbers; 1 for quaternions.
        action_low: 14 numbers, the negative of `action_high`, so that zero stays zero.
        action_high: 14 numbers.
    """

    proprio_low: tuple[float, ...]
    proprio_high: tuple[float, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]


W_POSITIVE = (1.0, 0.0, 0.0, 0.0)
"""Sign of quaternions in benches and data sets: w >= 0."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that a checkpoint must state in addition to its weights.

    Attributes:
        name: Shown in records.
        bench: Bench that it was trained for; fixes the image pipeline and the frames of reference.
        network: The transformer.
        codec: Frames to latents.
        text: Prompts to text tokens.
        depth_range: Metres to depth video.
        bounds: Normalisation of states and actions.
        image_hw_px: Size of the images that the codec encodes.
        views: Camera kinds in order.
        arms: Arms that it drives.
        control_hz: Control rate of its data; None if the bench has none.
        num_actions: K, actions in a chunk.
        num_future_frames: F, predicted frames.
        frame_stride: Control steps between frames.
        num_video_steps: Denoising steps of the video in evaluation.
        num_action_steps: Those of actions and states, which are the first ones of the video.
        execute_steps: Actions of a chunk that are executed before the next one is asked for.
        depth_known: Whether `depth_range` is the map of its training; False if that map was not published.
        blind: Whether it gets grey images, in training and afterwards: a control.
        quat_side_wxyz: Of the two quaternions of a rotation, the network gets the one with a positive product with this
            one. The default is w >= 0 as in benches; another one avoids sign changes near common poses.
        family: Name of its design of network, see `xwam/families.py`.
        prefix_actions_max: Most first actions that it got clean in its training, see `Recipe`.
    """

    name: str
    bench: str
    network: NetworkConfig
    codec: CodecConfig
    text: TextConfig
    depth_range: DepthRange
    bounds: Bounds
    image_hw_px: tuple[int, int]
    views: tuple[str, ...]
    arms: tuple[str, ...]
    control_hz: float | None
    num_actions: int = 32
    num_future_frames: int = 8
    frame_stride: int = 4
    num_video_steps: int = 10
    num_action_steps: int = 4
    execute_steps: int = 8
    depth_known: bool = True
    blind: bool = False
    quat_side_wxyz: tuple[float, float, float, float] = W_POSITIVE
    family: str = "xwam"
    prefix_actions_max: int = 0

    @property
    def on_wan(self) -> bool:
        """Return whether it reads images or prompts as Wan2.2 does, from whose weights its training then starts."""
        return (self.codec.kind, self.text.kind) != ("patch_dct", "hashed")

    @property
    def shows_what_it_saw(self) -> bool:
        """Return whether predictions start from the current frame, and the model gets to see it."""
        return self.codec.builds_on_first_frame and not self.blind

    @property
    def moving_views(self) -> list[int]:
        """Return the views that move with an end effector."""
        return [view for view, kind in enumerate(self.views) if kind == "wrist"]

    @property
    def wrist_arms(self) -> dict[int, str]:
        """Return the arm that carries each moving view: the arms in order, and the last one for further views.

        Example:
            >>> NANO.wrist_arms
            {2: 'left'}
        """
        return {view: self.arms[min(index, len(self.arms) - 1)] for index, view in enumerate(self.moving_views)}

    @property
    def static_views(self) -> list[int]:
        """Return the views that do not move."""
        return [view for view, kind in enumerate(self.views) if kind == "static"]

    @property
    def latent_shape(self) -> tuple[int, int, int, int, int]:
        """Return the sizes of the denoised video: channels, latent frames, views, rows, columns.

        Example:
            >>> NANO.latent_shape
            (48, 3, 3, 8, 8)
        """
        stride_t, stride_h, stride_w = LATENT_STRIDES
        frames = 1 + self.num_future_frames // stride_t
        rows, cols = self.codec.mosaic or (1, 1)
        views = len(self.views) if self.codec.mosaic is None else 1
        height, width = rows * self.image_hw_px[0], cols * self.image_hw_px[1]
        return self.network.state_channels, frames, views, height // stride_h, width // stride_w

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; `from_json` gives the same configuration back.

        What older versions did not know is left out where it says nothing: their checkpoints and states stay equal.
        """
        data = asdict(self)
        if self.family == "xwam":
            del data["family"]
        if self.prefix_actions_max == 0:
            del data["prefix_actions_max"]
        if self.codec.mosaic is None:
            del data["codec"]["mosaic"]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any], network_type: type[NetworkConfig] = NetworkConfig) -> ModelConfig:
        """Return the configuration that `to_json` wrote, with tuples restored; see `families.model_from_json`."""
        parts = {"network": network_type, "codec": CodecConfig, "text": TextConfig, "depth_range": DepthRange}
        built = {name: kind(**_tuples(data[name])) for name, kind in (parts | {"bounds": Bounds}).items()}
        return cls(**(_tuples(data) | built))


_NO_ARM = (0.0,) * 8

NANO = ModelConfig(
    name="xwam-nano",
    bench="robosuite",
    network=NetworkConfig(
        width=192,
        ffn_width=576,
        num_heads=3,
        num_blocks=6,
        num_depth_blocks=2,
        patch_hw=(4, 4),
        place_grid=(2, 2),
        video_prediction="clean",
        proprio_prediction="change",
        text_width=64,
        text_len=32,
        time_width=64,
    ),
    codec=CodecConfig(kind="patch_dct"),
    text=TextConfig(kind="hashed"),
    depth_range=DepthRange(),
    bounds=Bounds(
        proprio_low=(0.2, -0.5, -0.2, -1.0, -1.0, -1.0, -1.0, 0.0, *_NO_ARM),
        proprio_high=(0.9, 0.5, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0, *_NO_ARM),
        action_low=(-1.0,) * 7 + (0.0,) * 7,
        action_high=(1.0,) * 7 + (0.0,) * 7,
    ),
    image_hw_px=(128, 128),
    views=("static", "static", "wrist"),
    arms=("left",),
    control_hz=20.0,
    num_video_steps=3,
    num_action_steps=2,
    quat_side_wxyz=(0.0, 1.0, 1.0, 0.0),
)
"""Small enough for one CPU core; the embedded default, for robosuite at 128x128."""

WAN22_5B = NetworkConfig(width=3072, ffn_width=14336, num_heads=24, num_blocks=30, num_depth_blocks=10)
"""The released size: Wan2.2-TI2V-5B and X-WAM's additions."""

RELEASE_GEOMETRY = Geometry(num_frames=3, num_views=3, rows=8, cols=10, num_actions=32, num_proprios=9)
"""256x320 pixels, three views, nine frames."""


def network_from_release(settings: Mapping[str, Any]) -> NetworkConfig:
    """Return the configuration behind the settings of a released checkpoint (Wan's names).

    Args:
        settings: JSON values under `dim`, `ffn_dim`, `num_layers`, `num_extra_layers` and so on.

    Raises:
        ValueError: If they describe a network that this code does not build.
    """
    fixed = {"qk_norm": True, "cross_attn_norm": True, "model_type": "ti2v"}
    for name, value in fixed.items():
        if settings.get(name, value) != value:
            raise ValueError(f"The network needs {name} = {value!r}, the checkpoint says {settings[name]!r}.")
    if settings.get("in_dim", 48) != settings.get("out_dim", 48):
        raise ValueError(f"in_dim {settings['in_dim']} and out_dim {settings['out_dim']} must be equal.")
    patch = settings.get("patch_size", (1, 2, 2))
    return NetworkConfig(
        width=settings["dim"],
        ffn_width=settings["ffn_dim"],
        num_heads=settings["num_heads"],
        num_blocks=settings["num_layers"],
        num_depth_blocks=settings.get("num_extra_layers", 0),
        num_views=settings.get("num_views", 3),
        latent_channels=settings.get("in_dim", 48),
        patch_hw=(patch[1], patch[2]),
        text_width=settings.get("text_dim", 4096),
        text_len=settings.get("text_len", 512),
        time_width=settings.get("freq_dim", 256),
        action_dim=settings.get("action_dim", 14),
        proprio_dim=settings.get("proprio_dim", 16),
        actions_per_frame=settings.get("action_num", 4),
        eps=settings.get("eps", 1e-6),
        depth="interleaved" if settings.get("num_extra_layers", 0) else "none",
    )


def release_from_network(config: NetworkConfig) -> dict[str, Any]:
    """Return a configuration under Wan's names; the inverse of `network_from_release`."""
    return {
        "model_type": "ti2v",
        "dim": config.width,
        "ffn_dim": config.ffn_width,
        "num_heads": config.num_heads,
        "num_layers": config.num_blocks,
        "num_extra_layers": config.num_depth_blocks if config.depth == "interleaved" else 0,
        "num_views": config.num_views,
        "in_dim": config.latent_channels,
        "out_dim": config.latent_channels,
        "patch_size": [1, *config.patch_hw],
        "text_dim": config.text_width,
        "text_len": config.text_len,
        "freq_dim": config.time_width,
        "action_dim": config.action_dim,
        "proprio_dim": config.proprio_dim,
        "action_num": config.actions_per_frame,
        "eps": config.eps,
    }


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}


class ParameterCount(NamedTuple):
    """Parameters of a network, by origin.

    Attributes:
        wan: Those of the video model that training starts from.
        views: Embeddings of views and of positions in them.
        actions_and_states: The four MLPs.
        depth: Depth blocks and depth head, or the parameters of an alternative to them.
    """

    wan: int
    views: int
    actions_and_states: int
    depth: int


def count_parameters(config: NetworkConfig) -> ParameterCount:
    """Return the numbers of parameters of a network, without building it.

    Example:
        >>> count_parameters(WAN22_5B).wan
        4999787712
    """
    d, channels = config.width, config.latent_channels
    patch = config.patch_hw[0] * config.patch_hw[1]
    attention = 4 * _linear(d, d) + 2 * d
    block = 2 * attention + _linear(d, config.ffn_width) + _linear(config.ffn_width, d) + 2 * d + 6 * d
    head = _linear(d, channels * patch) + 2 * d
    time = _linear(config.time_width, d) + _linear(d, d) + _linear(d, 6 * d)
    text = _linear(config.text_width, d) + _linear(d, d)
    wan = _linear(channels * patch, d) + text + time + config.num_blocks * block + head
    mlps = [_linear(size, d) + 2 * _linear(d, d) + _linear(d, size) for size in (config.action_dim, config.proprio_dim)]
    depth = {
        "interleaved": config.num_depth_blocks * block + head,
        "sequence": d,
        "channel": 2 * channels * patch * d + channels * patch,
        "none": 0,
    }
    places = 1 + (0 if config.place_grid is None else config.place_grid[0] * config.place_grid[1])
    return ParameterCount(wan, config.num_views * places * d, sum(mlps), depth[config.depth])


def _linear(width_in: int, width_out: int) -> int:
    return (width_in + 1) * width_out
