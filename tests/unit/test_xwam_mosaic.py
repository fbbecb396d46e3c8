"""Views as tiles of one image: where each view lies, and what a codec then sees."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from xwam.checkpoints.bundle import load_codec
from xwam.codecs.codec import decode_views, encode_views
from xwam.codecs.mosaic import Mosaic
from xwam.codecs.patch_dct import PatchDCT
from xwam.config import NANO, ModelConfig

TILED = replace(NANO, codec=replace(NANO.codec, mosaic=(2, 2)))


class Smoothing:
    """A codec with a convolution of 3x3 pixels: each latent pixel is the mean of its neighbourhood."""

    channels = 3

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        flat = video_BCTHW.transpose(1, 2).flatten(0, 1)
        smooth = torch.nn.functional.avg_pool2d(flat, 3, stride=1, padding=1)
        return smooth.unflatten(0, (-1, video_BCTHW.shape[2])).transpose(1, 2)

    def decode(self, latent_BCTHW: Tensor, seen_BCHW: Tensor | None = None) -> Tensor:
        return latent_BCTHW


def video(views: int = 3, frames: int = 5, size: int = 32) -> Tensor:
    return torch.rand(2, 3, frames, views, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_views_lie_in_columns_and_the_rest_is_black() -> None:
    views = video()
    tiled = Mosaic(Smoothing(), (2, 2), 3).join(views)
    expected = torch.full((2, 3, 5, 64, 64), -1.0)
    expected[..., :32, :32] = views[:, :, :, 0]
    expected[..., 32:, :32] = views[:, :, :, 1]
    expected[..., :32, 32:] = views[:, :, :, 2]
    assert torch.equal(tiled, expected)


def test_splitting_undoes_joining() -> None:
    mosaic = Mosaic(Smoothing(), (2, 2), 3)
    assert torch.equal(mosaic.split(mosaic.join(video())), video())


def test_a_convolution_sees_across_the_borders_of_tiles() -> None:
    mosaic, other = Mosaic(Smoothing(), (2, 2), 3), video()
    other[:, :, :, 1] = -other[:, :, :, 1]
    one, two = encode_views(mosaic, video()), encode_views(mosaic, other)
    assert one.shape == (2, 3, 5, 1, 64, 64)
    changed = (one != two)[:, :, :, 0].flatten(0, 2).any(0)
    assert changed[31, :32].all(), "the last row of the upper tile reads the first row of the lower one"
    assert not changed[:31].any()


def test_a_codec_of_blocks_gives_the_same_latents_tile_by_tile() -> None:
    codec = PatchDCT(48)
    tiled, alone = encode_views(Mosaic(codec, (2, 2), 3), video()), encode_views(codec, video())
    split = Mosaic(codec, (2, 2), 3).split(tiled[:, :, :, 0])
    torch.testing.assert_close(split, alone)
    torch.testing.assert_close(
        decode_views(Mosaic(codec, (2, 2), 3), tiled, video()[:, :, 0]), decode_views(codec, alone, video()[:, :, 0])
    )


def test_a_model_states_its_mosaic_and_its_latents() -> None:
    codec = load_codec(TILED, Path())
    assert isinstance(codec, Mosaic)
    shape = encode_views(codec, torch.zeros(1, 3, 9, 3, 128, 128)).shape[1:]
    assert tuple(shape) == TILED.latent_shape == (48, 3, 1, 16, 16)
    assert ModelConfig.from_json(TILED.to_json()) == TILED


def test_a_mosaic_too_small_for_the_views_is_refused() -> None:
    with pytest.raises(ValueError, match="A mosaic of 1x2 tiles cannot hold 3 views"):
        Mosaic(Smoothing(), (1, 2), 3)
    with pytest.raises(ValueError, match="The mosaic needs 2 views, got 3"):
        Mosaic(Smoothing(), (1, 2), 2).join(video())
