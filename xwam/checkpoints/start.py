"""Models of any family to be fine-tuned: from Wan2.2, or from the weights that the family's authors published.

In: a folder, a family, a bench with the statistics of its data. Out: a `Bundle`, and what was left out.
Read next: `convert.py` for X-WAM's own; `xwam/cli/checkpoints.py` for the verb; `baselines/dreamzero/official.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from xwam.checkpoints.bundle import Bundle, network_of
from xwam.checkpoints.convert import from_wan
from xwam.checkpoints.fresh import start_from_wan
from xwam.checkpoints.metadata import CheckpointError, start_model
from xwam.checkpoints.wan import load_wan, load_wan_text, load_wan_vae, umt5_from_wan, umt5_text, vae_from_wan
from xwam.codecs.codec import Codec
from xwam.codecs.mosaic import Mosaic
from xwam.config import ModelConfig, NetworkConfig
from xwam.families import OWN, family_of

LARGE = "5b"
"""The model of a family whose sizes are Wan2.2's; a family may have variants of it, such as `5b-flash`."""

WAN_SIZES = (
    "width",
    "ffn_width",
    "num_heads",
    "num_blocks",
    "latent_channels",
    "patch_hw",
    "text_width",
    "text_len",
    "time_width",
    "eps",
)


class OfficialWeights(Protocol):
    """What a family reads of its authors' weights.

    Attributes:
        network: Sizes of the network.
        weights: Its tensors by our names.
        settings: Sizes that the family's networks have in addition to Wan's.
        text_encoder: Tensors of umT5 under Wan's names.
        vae: Tensors of Wan2.2's VAE under Wan's names.
        left_out: Everything else with its reason, one text each.
    """

    @property
    def network(self) -> NetworkConfig: ...  # noqa: D102
    @property
    def weights(self) -> Mapping[str, Tensor]: ...  # noqa: D102
    @property
    def text_encoder(self) -> Mapping[str, Tensor]: ...  # noqa: D102
    @property
    def settings(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def vae(self) -> Mapping[str, Tensor]: ...  # noqa: D102
    @property
    def left_out(self) -> Sequence[Any]: ...  # noqa: D102


@runtime_checkable
class ReadsOfficial(Protocol):
    """A family that knows the layout of its authors' weights."""

    def official(self, source: Path) -> OfficialWeights | None:
        """Return the content of a file or folder in that layout; None for other layouts.

        Raises:
            CheckpointError: If it is in that layout and cannot be used.
        """
        ...


def start_bundle(
    source: Path,
    *,
    model: str = OWN,
    bench: str,
    statistics: Mapping[str, Any],
    tokenizer: str | None = None,
) -> tuple[Bundle, list[str]]:
    """Return a model to be fine-tuned, and what of the source it does not hold.

    Args:
        source: Wan2.2-TI2V-5B (a folder of Wan or of diffusers), or weights that the family's authors published.
        model: `FAMILY/NAME` of a model on Wan2.2, for example `dreamzero/5b-flash`; `FAMILY` alone means its `5b`.
        bench: `robocasa` or `robotwin`.
        statistics: Quantiles of its data, in the released layout.
        tokenizer: Where umT5's tokenizer lies if the folder holds none.

    Raises:
        CheckpointError: If the source cannot become such a model, or there is no such model.
    """
    if model == OWN:
        return from_wan(source, bench=bench, statistics=statistics, tokenizer=tokenizer), []
    large = large_model(model)
    owner = family_of(large.family)
    official = owner.official(source) if isinstance(owner, ReadsOfficial) else None
    if official is not None:
        return _from_official(official, source, large, bench=bench, statistics=statistics, tokenizer=tokenizer)
    sizes, weights = load_wan(source)
    started = _model(large, sizes, bench=bench, statistics=statistics)
    network = start_from_wan(started.network, weights, family=large.family)
    text = load_wan_text(source, num_tokens=started.network.text_len, tokenizer=tokenizer)
    return Bundle(started, network, _codec(load_wan_vae(source), started), text), []


def large_model(name: str) -> ModelConfig:
    """Return the model `FAMILY/NAME` on Wan2.2; `FAMILY` alone means its `5b`.

    Raises:
        CheckpointError: If there is no such model, or it does not start from Wan2.2.

    Example:
        >>> large_model("dreamzero").name, large_model("dreamzero/5b-flash").name
        ('dreamzero-5b', 'dreamzero-5b-flash')
    """
    family, _, size = name.partition("/")
    try:
        large = {key: model for key, model in family_of(family).models.items() if model.on_wan}
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    if (size or LARGE) not in large:
        choices = ", ".join([f"{family}/{key}" for key in large]) or f"{family} alone"
        raise CheckpointError(f"There is no model '{name}' that starts from Wan2.2; choose among {choices}.")
    return large[size or LARGE]


def _from_official(
    official: OfficialWeights,
    source: Path,
    large: ModelConfig,
    *,
    bench: str,
    statistics: Mapping[str, Any],
    tokenizer: str | None,
) -> tuple[Bundle, list[str]]:
    left_out = [str(part) for part in official.left_out]
    if not official.vae or not official.text_encoder:
        lacking = "VAE" if not official.vae else "text encoder"
        reason = next((text for text in left_out if lacking in text), f"it holds no {lacking}")
        raise CheckpointError(
            f"The network in {source} loads ({official.network.num_blocks} blocks of width {official.network.width}), "
            f"but no model for {bench} can be made of it: {reason}."
        )
    model = _model(large, official.network, bench=bench, statistics=statistics)
    model = replace(model, network=replace(model.network, **official.settings))
    text = umt5_text(
        umt5_from_wan(official.text_encoder), source, num_tokens=model.network.text_len, tokenizer=tokenizer
    )
    network = network_of(model, official.weights, source=str(source))
    return Bundle(model, network, _codec(vae_from_wan(official.vae), model), text), left_out


def _model(large: ModelConfig, sizes: NetworkConfig, *, bench: str, statistics: Mapping[str, Any]) -> ModelConfig:
    """Return a large model for a bench, with the sizes of the video model that it starts from."""
    wan = {name: getattr(sizes, name) for name in WAN_SIZES}
    plain = NetworkConfig(num_depth_blocks=0, **wan)
    started = start_model(plain, bench=bench, statistics=statistics, num_depth_blocks=0)
    views = large.network.num_views if large.codec.mosaic is not None else started.network.num_views
    return replace(
        large,
        name=large.name.replace(LARGE, bench),
        bench=bench,
        network=replace(
            large.network,
            num_views=views,
            num_depth_blocks=min(large.network.num_depth_blocks, sizes.num_blocks),
            **wan,
        ),
        bounds=started.bounds,
        views=started.views,
        arms=started.arms,
        control_hz=started.control_hz,
        quat_side_wxyz=started.quat_side_wxyz,
        depth_known=False,
    )


def _codec(codec: Codec, model: ModelConfig) -> Codec:
    return codec if model.codec.mosaic is None else Mosaic(codec, model.codec.mosaic, len(model.views))
