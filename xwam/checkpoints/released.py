"""The released container: its tensors by owner, and the sizes that follow from their shapes.

In: an experiment's folder as it was released. Out: tensors under Wan's names, mapped from disk; a `NetworkConfig`.
Read next: `bundle.py`, which fills a network with them; `metadata.py` for the configuration of the folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from xwam.checkpoints.metadata import RELEASED_WEIGHTS, CheckpointError
from xwam.checkpoints.tensors import only_tensors, read_pickle, under
from xwam.config import WAN22_5B, NetworkConfig

WAN_HEAD_WIDTH = 128
"""Width of an attention head in every published Wan; it does not follow from the shape of a tensor."""


class Container(NamedTuple):
    """The tensors of a released experiment by owner, mapped from disk."""

    network: dict[str, Tensor]
    vae: dict[str, Tensor]
    vae_mean: Tensor
    vae_std: Tensor
    text_encoder: dict[str, Tensor]


def read_container(folder: Path) -> Container:
    """Return the tensors of a released experiment.

    Raises:
        CheckpointError: If the file is missing, cut off, or lacks a part.
    """
    path = folder / RELEASED_WEIGHTS
    content = read_pickle(path)
    if not isinstance(content, dict) or not isinstance(content.get("module"), dict):
        raise CheckpointError(f"{path} must hold a dictionary with 'module' in it, as DeepSpeed writes it.")
    module = only_tensors(content["module"], path)
    parts = {prefix: under(module, prefix) for prefix in ("model.", "vae.model.", "text_encoder.model.")}
    absent = [prefix for prefix, tensors in parts.items() if not tensors]
    absent += [name for name in ("vae.mean", "vae.std") if name not in module]
    known = (*parts, "vae.mean", "vae.std")
    extra = sorted(name for name in module if not name.startswith(known))
    if absent:
        raise CheckpointError(f"{path} holds nothing under '{absent[0]}'.")
    if extra:
        raise CheckpointError(f"{path} holds '{extra[0]}', which belongs to no part of the model.")
    network, vae, text_encoder = parts.values()
    return Container(network, vae, module["vae.mean"], module["vae.std"], text_encoder)


def sizes_of(
    weights: Mapping[str, Tensor], *, like: NetworkConfig, num_heads: int | None = None, num_blocks: int | None = None
) -> NetworkConfig:
    """Return the sizes of a network from the shapes of its tensors (Wan's names).

    Args:
        weights: The tensors.
        like: Source of the sizes that no shape tells: text length, eps, depth mode, number of depth blocks.
        num_heads: Attention heads; None for heads of 128, as in Wan.
        num_blocks: Expected main blocks; None for 30 at Wan's width, and for any number without a gap at others.

    Raises:
        CheckpointError: If a needed tensor or a block is missing, or the number of heads is unknown.
    """
    try:
        width, channels, _, rows, cols = weights["patch_embedding.weight"].shape
        views = weights["view_embedding.weight"].shape[0] if "view_embedding.weight" in weights else like.num_views
        if num_heads is None and width % WAN_HEAD_WIDTH:
            raise CheckpointError(
                f"The network is {width} wide, which is no multiple of Wan's heads of {WAN_HEAD_WIDTH}; give its "
                f"number of heads: policy.xwam.num_heads=N, or `xwam convert --num-heads N`."
            )
        if num_blocks is None and width == WAN22_5B.width:
            num_blocks = WAN22_5B.num_blocks
        return replace(
            like,
            width=width,
            ffn_width=weights["blocks.0.ffn.0.weight"].shape[0],
            num_heads=num_heads or width // WAN_HEAD_WIDTH,
            num_blocks=_count_blocks(weights, "blocks.", expected=num_blocks),
            num_depth_blocks=_count_depth_blocks(weights, like),
            num_views=views,
            latent_channels=channels,
            patch_hw=(rows, cols),
            text_width=weights["text_embedding.0.weight"].shape[1],
            time_width=weights["time_embedding.0.weight"].shape[1],
        )
    except KeyError as error:
        raise CheckpointError(f"The weights of the network lack {error}.") from error
    except CheckpointError:
        raise
    except ValueError as error:  # from the unpacking of a shape, or sizes that fit no network
        raise CheckpointError(f"The weights are of no network of ours: {error}") from error


def _count_depth_blocks(weights: Mapping[str, Tensor], like: NetworkConfig) -> int:
    """Return the depth blocks; a network without depth keeps its number for models that start from it."""
    if like.depth != "interleaved":
        return like.num_depth_blocks
    return _count_blocks(weights, "extra_blocks.0.", expected=like.num_depth_blocks)


def _count_blocks(weights: Mapping[str, Tensor], prefix: str, *, expected: int | None) -> int:
    """Return the number of blocks.

    Raises:
        CheckpointError: Names the first missing block, or the first surplus one.
    """
    present = {int(match[1]) for name in weights if (match := re.match(rf"{re.escape(prefix)}(\d+)\.", name))}
    count = max(present, default=-1) + 1 if expected is None else expected
    absent = sorted(set(range(count)) - present)
    surplus = sorted(present - set(range(count)))
    if absent or surplus:
        problem = f"lack '{prefix}{absent[0]}'" if absent else f"hold '{prefix}{surplus[0]}', which is one too many"
        raise CheckpointError(f"The weights of the network {problem}: {count} blocks expected, {len(present)} found.")
    return count
