"""Caches encoded clips: without a cache, a training on a CPU spends half its time decoding videos.

In: a `ClipDataset` without augmentation, a codec, a folder. Out: the same clips with latents instead of images.
Read next: `clips.py`; `batches.py`, which accepts both kinds of clips.

The first access to a clip encodes its whole episode into one file, with one clip per control step. The name of the
file depends on the content of the episode, so an episode that was recorded again is encoded again.

Letters: S starts, C channels, T latent frames, V views, H W latent rows and columns.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.utils.data import Dataset

from evalkit.contracts.fingerprint import FileHashes, sha256_of_values
from evalkit.dataset.layout import BrokenEpisode, Track
from xwam.checkpoints.tensors import write_tensors
from xwam.codecs.codec import Codec, encode_views
from xwam.config import CodecConfig
from xwam.training.clips import ClipDataset

FORMAT = 4
"""Version of the cache; increase it when images or the latents of a codec change."""


class EncodedSample(NamedTuple):
    """One clip as a `Sample` with encoded videos: C,T,V,H,W."""

    video_CTVHW: Tensor
    depth_CTVHW: Tensor
    proprio_PS: Tensor
    proprio_mask_PS: Tensor
    action_KA: Tensor
    action_mask_KA: Tensor
    executed_KA: Tensor
    instruction: str


class LatentClips(Dataset[EncodedSample]):
    """The encoded clips of a data set; latents are stored as float16, whose error is below that of the codecs.

    Args:
        clips: The clips, without augmentation.
        codec: The codec.
        codec_config: Its settings.
        folder: Folder of the cache; each combination of settings has its own files.
        depth: Whether the model learns depth; else none is stored.

    Raises:
        ValueError: If the clips are augmented.
    """

    def __init__(
        self, clips: ClipDataset, codec: Codec, codec_config: CodecConfig, folder: Path, *, depth: bool = True
    ) -> None:
        if clips.augmentation is not None:
            raise ValueError("Augmented images differ at every access, so they cannot be encoded once (encode_once).")
        self.clips, self._codec = clips, codec
        self._names = ("video", "depth") if depth else ("video",)
        settings = {
            "format": FORMAT,
            **({} if depth else {"depth": False}),
            "codec": {"kind": codec_config.kind} | ({"mosaic": codec_config.mosaic} if codec_config.mosaic else {}),
            "channels": codec.channels,
            "shape": asdict(clips.shape),
            "pictures": asdict(clips.images),
        }
        if isinstance(codec, torch.nn.Module):
            settings["weights"] = _digest_of(codec)
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self._folder = folder / digest[:16]
        self._hashes = FileHashes()
        self._path = lru_cache(maxsize=None)(self._path_of)

    def __len__(self) -> int:
        return len(self.clips)

    def where(self, index: int) -> tuple[str, int]:
        """Return the episode and the control step at which clip `index` starts."""
        return self.clips.where(index)

    def __getitem__(self, index: int) -> EncodedSample:
        return self.sample(index, np.random.default_rng(index))

    def sample(self, index: int, rng: np.random.Generator) -> EncodedSample:
        """Return one clip; `rng` chooses its prompt.

        Raises:
            BrokenEpisode: If a file of its episode is broken.
        """
        key, start = self.where(index)
        path = self._path(key)
        numbers = self.clips.numbers(index, rng)
        if not path.is_file():
            for stale in path.parent.glob(f"{Path(key).name}-*.safetensors"):
                stale.unlink()
            self._encode(self.clips.track(key), path)
        try:
            with safe_open(path, "pt") as file:
                video, *depth = (file.get_slice(name)[start].float() for name in self._names)
        except SafetensorError as error:
            raise ValueError(f"{path} is broken ({error}). Delete it; the next access writes it again.") from error
        return EncodedSample(video, depth[0] if depth else video[:0], *numbers)

    def _path_of(self, key: str) -> Path:
        """Return the file of an episode's latents; its name depends on the content of its JSON and its videos."""
        try:
            files = [self.clips.root / "data" / f"{key}.json"]
            files += [video for camera in self.clips.track(key).cameras for video in camera.videos]
            digest = sha256_of_values([self._hashes.sha256(file) for file in files])
        except OSError as error:
            raise BrokenEpisode(f"{key}: {error.filename} cannot be read: {error.strerror}.") from error
        return self._folder / f"{key}-{digest[:16]}.safetensors"

    @torch.no_grad()
    def _encode(self, track: Track, path: Path) -> None:
        """Write the latents of every clip of an episode, whole or not at all."""
        video_CNVHW, depth_CNVHW = self.clips.whole_episode(track)
        shape, last = self.clips.shape, track.num_frames - 1
        latents: dict[str, list[Tensor]] = {name: [] for name in self._names}
        for start in range(shape.num_starts(track.num_frames)):  # one clip fits into the cache of a CPU
            wanted = (start + torch.arange(shape.num_frames) * shape.frame_stride).clamp(max=last)
            for name, frames in zip(self._names, (video_CNVHW, depth_CNVHW), strict=False):
                latents[name].append(encode_views(self._codec, frames[None, :, wanted]).cpu().half())
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        write_tensors(
            path, {name: torch.cat(clips).contiguous() for name, clips in latents.items()}, temporary=temporary
        )


def _digest_of(codec: torch.nn.Module) -> str:
    """Return a hash of a codec's weights."""
    digest = hashlib.sha256()
    for name, weight in sorted(codec.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
