"""Kept latents: they are those of the recording that is there, and of the codec that is asked."""

from pathlib import Path
from typing import Any

import pytest
import torch

from evalkit.dataset.depth_video import DepthRange
from evalkit.dataset.videos import write_video
from evalkit.dataset.writer import write_episode
from tests.doubles.recordings import NO_BOUNDS, RECORDING, key_of, steps_of
from xwam.codecs.patch_dct import PatchDCT
from xwam.config import CodecConfig
from xwam.training.clips import ClipDataset, ClipShape, ImageSettings
from xwam.training.latent_cache import LatentClips

CODEC = CodecConfig(kind="patch_dct")


def write(root: Path, seed: Any) -> None:
    write_episode(root, 0, steps_of(seed), RECORDING, instructions=["lift the cube"])


def kept(root: Path, codec: Any) -> Any:
    clips = ClipDataset(
        root,
        {key_of(0): 40},
        shape=ClipShape(num_actions=8, num_frames=5, frame_stride=2, past_end="hold"),
        images=ImageSettings(image_hw_px=(32, 48), crop_frac=1.0, depth_range=DepthRange(), exact_depth=True),
        bounds=NO_BOUNDS,
        augmentation=None,
    )
    return LatentClips(clips, codec, CODEC, root / "latents")


def test_an_episode_that_was_recorded_anew_is_encoded_anew(tmp_path: Path) -> None:
    write(tmp_path, seed=0)
    first = kept(tmp_path, PatchDCT(48))[3].video_CTVHW
    assert torch.equal(kept(tmp_path, PatchDCT(48))[3].video_CTVHW, first)
    write(tmp_path, seed=1)
    second = kept(tmp_path, PatchDCT(48))[3].video_CTVHW
    assert not torch.equal(second, first)
    assert len(list((tmp_path / "latents").rglob("*.safetensors"))) == 1  # those of the first are gone
    (path,) = (tmp_path / "latents").rglob("*.safetensors")
    path.unlink()
    assert torch.equal(kept(tmp_path, PatchDCT(48))[3].video_CTVHW, second)


class Scaled(torch.nn.Module):
    """A codec with a weight."""

    def __init__(self, scale: Any) -> None:
        super().__init__()
        self.plain, self.channels = PatchDCT(48), 48
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def encode(self, video_BCTHW: Any) -> Any:
        return self.scale * self.plain.encode(video_BCTHW)

    def decode(self, latent_BCTHW: Any, seen_BCHW: Any = None) -> Any:
        return self.plain.decode(latent_BCTHW / self.scale, seen_BCHW)


def test_codecs_with_other_weights_keep_latents_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, seed=0)
    once, twice = (kept(tmp_path, Scaled(scale))[3].video_CTVHW for scale in (0.5, 1.0))
    torch.testing.assert_close(2 * once, twice, atol=1e-2, rtol=1e-2)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(once, twice, atol=1e-2, rtol=1e-2)


def test_a_video_of_the_same_size_is_encoded_anew(tmp_path: Path) -> None:
    write(tmp_path, seed=0)
    first = kept(tmp_path, PatchDCT(48))[3].video_CTVHW
    path = tmp_path / "video" / "a" / f"{key_of(0)}.mp4"
    before = path.stat().st_size
    write_video(path, 255 - steps_of(0).rgb[:, 0], fps=20)
    path.write_bytes(path.read_bytes() + bytes(max(0, before - path.stat().st_size)))
    other = kept(tmp_path, PatchDCT(48))[3].video_CTVHW
    assert not torch.equal(other, first)
