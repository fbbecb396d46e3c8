"""Every size of DreamZero, from nano to 5B on Wan2.2, as data.

In: nothing. Out: configurations, and numbers of parameters by origin.
Read next: `layout.py`, the order of the tokens; `network.py`, which is built from these sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from xwam.config import LATENT_STRIDES, ModelConfig, NetworkConfig

StateReads = Literal["itself", "block"]


@dataclass(frozen=True, kw_only=True)
class DreamZeroConfig(NetworkConfig):
    """DreamZero's transformer on the trunk of `NetworkConfig`, without a depth branch.

    `num_views` counts the images that the codec encodes: 1, the mosaic of all cameras.

    Attributes:
        latents_per_block: Latent frames in a block.
        actions_per_block: Actions in a block.
        window_blocks: Most blocks after the first frame; then the window starts again.
        state_hidden: Hidden width of the encoder of states.
        action_hidden: Hidden width of the decoder of actions.
        action_slots: Numbers that encoder and decoder of actions have; those beyond `action_dim` stay zero. The
            official weights have 32.
        state_slots: The same of states; the official weights have 64.
        guidance: Weight of conditional minus unconditional velocity of the video, above 1; 0 for the conditional pass
            alone.
        independent_levels: Whether actions have noise levels of their own, as in the Flash variant.
        state_reads: What a state token reads at inference: `itself`, as in training, or its whole `block` and the
            frames before it, as the official inference computes.
    """

    num_depth_blocks: int = 0
    num_views: int = 1
    depth: Literal["none"] = "none"
    latents_per_block: int = 2
    actions_per_block: int = 32
    window_blocks: int = 4
    state_hidden: int = 1024
    action_hidden: int = 1024
    action_slots: int = 32
    state_slots: int = 64
    guidance: float = 5.0
    independent_levels: bool = False
    state_reads: StateReads = "itself"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth != "none" or self.num_depth_blocks or self.num_views != 1:
            raise ValueError(
                f"DreamZero predicts RGB alone, of one mosaic image; got depth '{self.depth}', "
                f"num_depth_blocks {self.num_depth_blocks} and num_views {self.num_views}."
            )
        if self.guidance < 0 or 0 < self.guidance <= 1:
            raise ValueError(f"guidance must be 0, for the conditional pass alone, or above 1, got {self.guidance}.")
        if self.action_slots < self.action_dim or self.state_slots < self.proprio_dim:
            raise ValueError(
                f"action_slots {self.action_slots} and state_slots {self.state_slots} must hold the {self.action_dim} "
                f"numbers of an action and the {self.proprio_dim} of a state."
            )

    @property
    def frames_per_block(self) -> int:
        """Return the images that a block predicts."""
        return self.latents_per_block * LATENT_STRIDES[0]


def network_of(model: ModelConfig) -> DreamZeroConfig:
    """Return the network's settings of a model of this family."""
    assert isinstance(model.network, DreamZeroConfig), "models of this family have its networks"
    return model.network


class DreamZeroParameters(NamedTuple):
    """Parameters of DreamZero by origin.

    Attributes:
        wan: Those of the video model that training starts from.
        positions: Learned embeddings of positions in the mosaic; nano only.
        actions: Encoder and decoder of actions.
        states: Encoder of states.
    """

    wan: int
    positions: int
    actions: int
    states: int


def count_dreamzero(config: DreamZeroConfig) -> DreamZeroParameters:
    """Return the numbers of parameters, without building the network.

    Actions: W1 (slots -> d), W2 (2d -> d), W3 (d -> d), and the decoder d -> hidden -> slots. States: slots -> hidden
    -> d. The official 5B model has an image branch (CLIP, 1280 -> 1280 -> d) in addition, which is left out here.

    Example:
        >>> WAN22_5B_DREAMZERO = DreamZeroConfig(width=3072, ffn_width=14336, num_heads=24, num_blocks=30)
        >>> count_dreamzero(WAN22_5B_DREAMZERO)
        DreamZeroParameters(wan=4999787712, positions=0, actions=31598624, states=3215360)
    """
    from xwam.config import count_parameters

    d = config.width
    encoder = _linear(config.action_slots, d) + _linear(2 * d, d) + _linear(d, d)
    decoder = _linear(d, config.action_hidden) + _linear(config.action_hidden, config.action_slots)
    states = _linear(config.state_slots, config.state_hidden) + _linear(config.state_hidden, d)
    places = 0 if config.place_grid is None else config.place_grid[0] * config.place_grid[1]
    return DreamZeroParameters(count_parameters(config).wan, places * d, encoder + decoder, states)


def _linear(width_in: int, width_out: int) -> int:
    return (width_in + 1) * width_out
