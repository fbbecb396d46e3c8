"""Images of a bench as the model sees them, and images of the model as the bench shows them.

In: RGB and depth images in the bench's pixels. Out: videos in [-1, 1] in the model's pixels; and the inverse.
Read next: `xwam/robots/image_pipeline.py` for sizes and crops, `evalkit/dataset/depth_video.py` for depth as a video.

Letters: B batch (1 here), C channels, F frames, V views, H W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from evalkit.dataset.depth_video import depth_from_video, video_from_depth
from xwam.config import ModelConfig
from xwam.robots.image_pipeline import ImagePipeline
from xwam.robots.interfaces import INTERFACES


class BenchImages:
    """Converts images between the bench and a model."""

    def __init__(self, model: ModelConfig) -> None:
        interface = INTERFACES[model.bench]
        self.model = model
        self.pipeline = ImagePipeline(
            env_hw_px=interface.env_image_hw_px(model), model_hw_px=model.image_hw_px, crop_frac=interface.crop_frac
        )

    def rgb_to_model(self, rgb_vhwc_u8: np.ndarray) -> Tensor:
        """Return RGB images as the model sees them, B,3,V,H,W in [-1, 1]; grey for a blind model."""
        video_BCVHW = video_from_rgb(rgb_vhwc_u8)
        seen_BCVHW = self.pipeline.to_model(video_BCVHW[0].transpose(0, 1)).transpose(0, 1)[None]
        return torch.zeros_like(seen_BCVHW) if self.model.blind else seen_BCVHW

    def depth_to_model(self, depth_fvhw_m: np.ndarray) -> Tensor:
        """Return depth images in metres as the model's depth video, 1,3,F,V,H,W in [-1, 1]."""
        grey = torch.from_numpy(video_from_depth(depth_fvhw_m, self.model.depth_range))
        grey = self.pipeline.to_model(grey.flatten(0, 1)[:, None], "nearest-exact")[:, 0].unflatten(
            0, (len(depth_fvhw_m), -1)
        )
        return grey[None, None].expand(-1, 3, -1, -1, -1, -1)

    def rgb_to_env(self, video_BCFVHW: Tensor) -> np.ndarray:
        """Return a video of the model as RGB images of the bench, F,V,H,W,3 uint8."""
        return rgb_from_video(self._to_env(video_BCFVHW))

    def depth_to_env_m(self, video_BCFVHW: Tensor) -> np.ndarray:
        """Return a depth video of the model as depth images of the bench, F,V,H,W float32 metres."""
        grey = self._to_env(video_BCFVHW.mean(1, keepdim=True))
        return depth_from_video(grey[0].numpy(), self.model.depth_range)

    def _to_env(self, video_BCFVHW: Tensor) -> Tensor:
        """Return a video of the model in the bench's pixels, C,F,V,H,W."""
        channels, frames = video_BCFVHW.shape[1:3]
        flat = video_BCFVHW[0].flatten(0, 2)[:, None]
        return self.pipeline.to_env(flat).unflatten(0, (channels, frames, -1))[:, :, :, 0]


def video_from_rgb(rgb_vhwc_u8: np.ndarray) -> Tensor:
    """Return RGB images as B,3,V,H,W in [-1, 1]."""
    return torch.from_numpy(np.array(rgb_vhwc_u8)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def rgb_from_video(video_CFVHW: Tensor) -> np.ndarray:
    """Return a video in [-1, 1] as F,V,H,W,3 uint8."""
    bytes_CFVHW = ((video_CFVHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return bytes_CFVHW.permute(1, 2, 3, 4, 0).contiguous().numpy()
