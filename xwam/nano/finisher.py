"""The finisher of nano models: it refines depth with measured depth and decodes images by copying pixels.

In: clean latents and states, present images and measured depth. Out: a `Prediction`.
Read next: `depth_refinement.py` and `pixel_decoder.py`, the two steps; `choice.py` for when they run.

Letters: F future frames, V views, H W pixels, C channels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evalkit.contracts.geometry import ee_pose_from_proprio, inverse
from evalkit.contracts.types import ARM_PROPRIO, Prediction
from evalkit.dataset.depth_video import depth_from_video
from xwam.codecs.patch_dct import PatchDCT, change_of_views
from xwam.flow.sampler import Latents
from xwam.nano.depth_refinement import Reprojected, reproject_views, snap_to_measured_depth
from xwam.nano.pixel_decoder import PixelDecoder, Scene, gripper_motion_features
from xwam.robots.axes import ee_pose
from xwam.robots.interfaces import INTERFACES
from xwam.serving.finisher import PlainFinisher
from xwam.serving.images import rgb_from_video
from xwam.serving.seen import Cameras, Seen


class MeasuredDepth(NamedTuple):
    """Present depth images: V,H,W metres, and the same as the model's depth video."""

    depth_vhw_m: np.ndarray
    depth_BCVHW: Tensor


class Present(NamedTuple):
    """The present of a request; without measured depth unless every view has it."""

    seen: Seen
    seen_BCVHW: Tensor
    measured: MeasuredDepth | None


class MeasuredFinisher:
    """Refines depth with the measured depth; a pixel decoder, where there is one, makes the images of static cameras.

    Without measured depth in every view, the result is that of the plain finisher.

    Args:
        plain: Decodes latents.
        decoder: Makes the images of static cameras; None for those of the codec.
    """

    def __init__(self, plain: PlainFinisher, decoder: PixelDecoder | None) -> None:
        self.plain, self.decoder, self.model = plain, decoder, plain.model

    def prepare(self, seen: Seen, seen_BCVHW: Tensor) -> Present:
        """Return the present, with measured depth as the codec needs it."""
        if seen.depth_vhw_m is None:
            return Present(seen, seen_BCVHW, None)
        depth_BCVHW = self.plain.images.depth_to_model(np.asarray(seen.depth_vhw_m)[None])[:, :, 0]
        return Present(seen, seen_BCVHW, MeasuredDepth(seen.depth_vhw_m, depth_BCVHW))

    def finish(self, latents: Latents, states: np.ndarray, context: Present) -> Prediction:
        """Return the prediction; see `Finisher.finish`. Without cameras, only static depth is refined."""
        (seen, seen_BCVHW, measured), moving = context, self.model.moving_views
        seen_depth_BCVHW = None if measured is None else measured.depth_BCVHW
        future = self.plain.decode(latents, states, seen_BCVHW=seen_BCVHW, seen_depth_BCVHW=seen_depth_BCVHW)
        if future.depth is None or measured is None:
            return future
        if seen.cameras is None:
            still_fvhw_m = np.repeat(measured.depth_vhw_m[None], len(future.depth), 0)
            still_fvhw_m[:, moving] = 0
            return replace(future, depth=self.refined_depth(future.depth, still_fvhw_m))
        assert future.proprio is not None, "the plain finisher gives states"
        reprojected = self.reproject_views(seen, seen.cameras, future.proprio)
        if self.decoder is not None:
            static, scene = self.model.static_views, self._scene(seen, seen.cameras, measured)
            images = self._decoded_images(self.decoder, latents, states, scene, (seen_BCVHW, measured.depth_BCVHW))
            future.rgb[:, static], future.depth[:, static] = images
            future.rgb[:, moving] = reprojected.rgb_fvhwc_u8[:, moving]
        return replace(future, depth=self.refined_depth(future.depth, reprojected.depth_fvhw_m))

    def refined_depth(self, pred_fvhw_m: np.ndarray, measured_fvhw_m: np.ndarray) -> np.ndarray:
        """Return predicted depth moved to measured surfaces; moving views take the reprojected depth."""
        moving, pred_fvhw_m = self.model.moving_views, pred_fvhw_m.copy()
        measured_moving = measured_fvhw_m[:, moving]
        pred_fvhw_m[:, moving] = np.where(measured_moving > 0, measured_moving, pred_fvhw_m[:, moving])
        return snap_to_measured_depth(pred_fvhw_m, measured_fvhw_m)

    def reproject_views(self, seen: Seen, cameras: Cameras, future_proprio: np.ndarray) -> Reprojected:
        """Return the present images, reprojected to where the end effector will take its cameras.

        Args:
            seen: The present, with measured depth.
            cameras: Where its cameras are.
            future_proprio: F,16, predicted states in the bench's frames.
        """
        arm = ARM_PROPRIO[self.model.arms[0]]
        T_ee_base = inverse(ee_pose_from_proprio(seen.proprio[arm]))
        moves_f44 = np.stack([ee_pose_from_proprio(state[arm]) @ T_ee_base for state in future_proprio])
        T_cam_future_fv44 = inverse(cameras.T_base_cam_v44) @ moves_f44[:, None] @ cameras.T_base_cam_v44
        depth_vhw_m = np.asarray(seen.depth_vhw_m)
        return reproject_views(
            seen.rgb_vhwc_u8, depth_vhw_m, cameras.intrinsics_v33_px, T_cam_future_fv44, self.model.moving_views
        )

    def _scene(self, seen: Seen, cameras: Cameras, measured: MeasuredDepth) -> Scene:
        """Return the present of the static views, with depth within the model's range."""
        views, arm = self.model.static_views, ARM_PROPRIO[self.model.arms[0]]
        axes = INTERFACES[self.model.bench].axes
        return Scene(
            depth_vhw_m=depth_from_video(measured.depth_BCVHW[0, 0, views].numpy(), self.model.depth_range),
            intrinsics_v33_px=cameras.intrinsics_v33_px[views],
            T_base_cam_v44=cameras.T_base_cam_v44[views],
            T_base_ee=ee_pose(axes.model_from_sim(seen.proprio, self.model.arms)[arm]),
        )

    def _decoded_images(
        self,
        decoder: PixelDecoder,
        latents: Latents,
        states: np.ndarray,
        scene: Scene,
        present_BCVHW: tuple[Tensor, Tensor],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the decoded images of the static views: RGB F,V,H,W,3 uint8 and depth F,V,H,W metres."""
        assert isinstance(self.plain.codec, PatchDCT), "the only codec that builds on the first frame"
        assert latents.depth_BCTVHW is not None, "there is predicted depth"
        views, count = self.model.static_views, self.model.num_future_frames
        T_base_ee_f44 = ee_pose(states[:, ARM_PROPRIO[self.model.arms[0]]])
        shares = [(frame + 1) / count for frame in range(count)]
        features = torch.from_numpy(gripper_motion_features(scene, T_base_ee_f44, shares))
        pair = (latents.video_BCTVHW, latents.depth_BCTVHW)
        change = change_of_views(self.plain.codec, *(latent[0][:, 1:, views].cpu() for latent in pair))
        rgb_BCVHW, depth_BCVHW = present_BCVHW
        seen = torch.cat([rgb_BCVHW[0][:, views], depth_BCVHW[0, :1][:, views]]).transpose(0, 1)
        device = next(decoder.parameters()).device
        inputs = (seen[None].expand_as(change), change, features)
        decoded = decoder(*(part.flatten(0, 1).to(device) for part in inputs))
        rgb_CFVHW = decoded.blended_NCHW[:, :3].cpu().unflatten(0, (count, len(views))).permute(2, 0, 1, 3, 4)
        depth_FVHW = decoded.sharp_NCHW[:, 3].cpu().unflatten(0, (count, len(views)))
        return rgb_from_video(rgb_CFVHW), depth_from_video(depth_FVHW.numpy(), self.model.depth_range)
