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
from xwam.checkpoints.metadata import CheckpointError
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

    Raises:
        CheckpointError: If there is a decoder and the model has several arms.
    """

    def __init__(self, plain: PlainFinisher, decoder: PixelDecoder | None) -> None:
        self.plain, self.decoder, self.model = plain, decoder, plain.model
        if decoder is not None and len(self.model.arms) != 1:
            raise CheckpointError(
                f"{self.model.name} holds a pixel decoder, which follows the end effector of one arm, but the model "
                f"has the arms {', '.join(self.model.arms)}; give a checkpoint without one."
            )

    def prepare(self, seen: Seen, seen_BCVHW: Tensor) -> Present:
        """Return the present, with measured depth as the codec needs it."""
        if seen.depth_vhw_m is None:
            return Present(seen, seen_BCVHW, None)
        depth_BCVHW = self.plain.images.depth_to_model(np.asarray(seen.depth_vhw_m)[None])[:, :, 0]
        return Present(seen, seen_BCVHW, MeasuredDepth(seen.depth_vhw_m, depth_BCVHW))

    def finish(self, latents: Latents, states: np.ndarray, context: Present) -> Prediction:
        """Return the prediction; see `Finisher.finish`. Without cameras, only static depth is refined."""
        seen, seen_BCVHW, measured = context
        if measured is None or latents.depth_BCTVHW is None:
            return self.plain.decode(latents, states, seen_BCVHW=seen_BCVHW)
        if seen.cameras is None:
            future, moved = self._decoded_by_codec(latents, states, context), None
        else:
            moved = self.reproject_views(seen, seen.cameras, self.plain.proprio(states))
            if self.decoder is None:
                future = self._decoded_by_codec(latents, states, context)
            else:
                future = self._decoded_by_copying(self.decoder, latents, states, context, moved)
        assert future.depth is not None, "there are depth latents"
        return replace(future, depth=self.refined_depth(future.depth, measured.depth_vhw_m, moved))

    def refined_depth(
        self, pred_fvhw_m: np.ndarray, measured_vhw_m: np.ndarray, moved: Reprojected | None
    ) -> np.ndarray:
        """Return predicted depth moved to measured surfaces; moving views take the reprojected depth, if any.

        Args:
            pred_fvhw_m: Predicted.
            measured_vhw_m: Measured now.
            moved: The present, reprojected to the future; None leaves moving views as predicted.
        """
        static, moving = self.model.static_views, self.model.moving_views
        refined_fvhw_m = pred_fvhw_m.copy()
        still_fvhw_m = measured_vhw_m[None, static].astype(np.float64)
        refined_fvhw_m[:, static] = snap_to_measured_depth(pred_fvhw_m[:, static], still_fvhw_m)
        if moved is not None:
            moved_fvhw_m = moved.depth_fvhw_m[:, moving]
            filled_fvhw_m = np.where(moved_fvhw_m > 0, moved_fvhw_m, pred_fvhw_m[:, moving])
            refined_fvhw_m[:, moving] = snap_to_measured_depth(filled_fvhw_m, moved_fvhw_m)
        return refined_fvhw_m

    def _decoded_by_codec(self, latents: Latents, states: np.ndarray, context: Present) -> Prediction:
        """Return what the codec decodes, as a change of the present RGB and depth images."""
        assert context.measured is not None, "depth is measured"
        depth_BCVHW = context.measured.depth_BCVHW
        return self.plain.decode(latents, states, seen_BCVHW=context.seen_BCVHW, seen_depth_BCVHW=depth_BCVHW)

    def reproject_views(self, seen: Seen, cameras: Cameras, future_proprio: np.ndarray) -> Reprojected:
        """Return the present images, reprojected to where each end effector will take its camera.

        Args:
            seen: The present, with measured depth.
            cameras: Where its cameras are.
            future_proprio: F,16, predicted states in the bench's frames.
        """
        moves_fv44 = np.tile(np.eye(4), (len(future_proprio), len(self.model.views), 1, 1))
        for view, arm in self.model.wrist_arms.items():
            columns = ARM_PROPRIO[arm]
            T_ee_base = inverse(ee_pose_from_proprio(seen.proprio[columns]))
            moves_fv44[:, view] = [ee_pose_from_proprio(state[columns]) @ T_ee_base for state in future_proprio]
        T_cam_future_fv44 = inverse(cameras.T_base_cam_v44) @ moves_fv44 @ cameras.T_base_cam_v44
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

    def _decoded_by_copying(
        self, decoder: PixelDecoder, latents: Latents, states: np.ndarray, context: Present, moved: Reprojected
    ) -> Prediction:
        """Return static views as the pixel decoder makes them; moving views are the reprojected ones.

        The codec decodes depth only where a moving view shows no known surface, and no RGB at all.
        """
        static, moving = self.model.static_views, self.model.moving_views
        rgb_fvhwc_u8, depth_fvhw_m = moved.rgb_fvhwc_u8.copy(), moved.depth_fvhw_m.astype(np.float32)
        if (depth_fvhw_m[:, moving] <= 0).any():
            assert context.measured is not None, "depth is measured"
            depth_m = self.plain.depth_m(latents, len(states), context.measured.depth_BCVHW)
            assert depth_m is not None, "there are depth latents"
            depth_fvhw_m[:, moving] = depth_m[:, moving]
        rgb_fvhwc_u8[:, static], depth_fvhw_m[:, static] = self._copied(decoder, latents, states, context)
        return Prediction(rgb=rgb_fvhwc_u8, depth=depth_fvhw_m, proprio=self.plain.proprio(states))

    def _copied(
        self, decoder: PixelDecoder, latents: Latents, states: np.ndarray, context: Present
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the decoder's images of the static views: RGB F,V,H,W,3 uint8 and depth F,V,H,W metres."""
        seen, seen_BCVHW, measured = context
        assert isinstance(self.plain.codec, PatchDCT), "the only codec that builds on the first frame"
        assert latents.depth_BCTVHW is not None, "there is predicted depth"
        assert measured is not None, "depth is measured"
        assert seen.cameras is not None, "cameras are known"
        views, count = self.model.static_views, len(states)
        T_base_ee_f44 = ee_pose(states[:, ARM_PROPRIO[self.model.arms[0]]])
        shares = [(frame + 1) / self.model.num_future_frames for frame in range(count)]
        scene = self._scene(seen, seen.cameras, measured)
        features = torch.from_numpy(gripper_motion_features(scene, T_base_ee_f44, shares))
        pair = (latents.video_BCTVHW, latents.depth_BCTVHW)
        video, depth = (latent[0][:, 1:, views].cpu() for latent in pair)
        change = change_of_views(self.plain.codec, video, depth, count)
        present = torch.cat([seen_BCVHW[0][:, views], measured.depth_BCVHW[0, :1][:, views]]).transpose(0, 1)
        device = next(decoder.parameters()).device
        inputs = (present[None].expand_as(change), change, features)
        rgb_N3HW, depth_NHW = decoder.images(*(part.flatten(0, 1).to(device) for part in inputs))
        rgb_CFVHW = rgb_N3HW.cpu().unflatten(0, (count, len(views))).permute(2, 0, 1, 3, 4)
        depth_FVHW = depth_NHW.cpu().unflatten(0, (count, len(views)))
        return rgb_from_video(rgb_CFVHW), depth_from_video(depth_FVHW.numpy(), self.model.depth_range)
