"""One request through the whole model: observation in, actions out, and the imagined future when asked.

In: pictures, a state, a prompt, a seed. Out: a state of denoising, which any number of passes may carry on.
Read next: `xwam/flow/sampler.py` for the passes, `xwam/policy.py` for the caller.

Letters: B batch (1 here), C channels, F future frames, V views, H W pixels, K actions.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evalkit.contracts.types import ARM_PROPRIO
from evalkit.dataset.depth_video import depth_from_video, video_from_depth
from xwam.checkpoints.bundle import Bundle
from xwam.codecs import codec as codecs
from xwam.config import LATENT_STRIDES, LEAST_STATE_STEPS
from xwam.flow import noise, sampler
from xwam.flow.realtime_chunking import Commitment, commit
from xwam.flow.unipc import UniPCState
from xwam.nano.pixel_decoder import Scene, hand_hints
from xwam.network.transformer import TextContext
from xwam.robots import actions
from xwam.robots.axes import accumulate, ee_pose
from xwam.robots.image_pipeline import ImagePipeline
from xwam.robots.interfaces import BORDERS

MAX_PROMPTS = 64
"""Prompts whose keys and values are kept."""


class Future(NamedTuple):
    """What a request imagines: RGB F,V,H,W,3 uint8, depth F,V,H,W float32 metres or None, states F,16 float32."""

    rgb: np.ndarray
    depth: np.ndarray | None
    proprio: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """A request under way.

    Attributes:
        state: Where its denoising stands.
        seen_BCVHW: The pictures it was asked with as the model sees them, in [-1, 1].
        seen_depth_BCVHW: The camera's depth of them as a depth video; None for the network's own.
        scene: What the decoder is told beside; None where there is no decoder, or the cameras measured no depth.
        start: The state, as the bench knows it, that its first action leads on from: the observed one at a halt, the
            last commanded one where it joins a chunk that is still being executed.
    """

    state: sampler.SamplerState
    seen_BCVHW: Tensor
    seen_depth_BCVHW: Tensor | None
    scene: Scene | None
    start: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Underway:
    """A chunk that is being executed while the next one is asked for.

    Attributes:
        request: As it stood when its actions were clean.
        executed: Actions of it that are executed by now.
        delay: Actions of it that will be executed until the next chunk is there.
    """

    request: Request
    executed: int
    delay: int

    def commitment(self) -> Commitment:
        """Return what the next chunk must join."""
        return commit(self.request.state.action.x, executed=self.executed, delay=self.delay)


class Engine:
    """A model between the borders of its bench; stateless but for a store of prompts.

    Args:
        bundle: Configuration, network, codec and text encoder.
        schedule: Step counts and guidance.
        device: Where the network lives.
        camera_depth: Whether a codec that builds on the first frame takes its depth from the camera, as it takes its
            RGB; else from the network, which sees no depth either way.
        warp: Whether the bundle's decoder draws what is imagined, where it has one and the cameras measure depth.
    """

    def __init__(
        self,
        bundle: Bundle,
        schedule: sampler.Schedule,
        *,
        device: str = "cpu",
        camera_depth: bool = False,
        warp: bool = True,
    ) -> None:
        self.model, self.network, self.codec, self.text_encoder, decoder = bundle
        self.schedule, self.device = schedule, torch.device(device)
        self.camera_depth = camera_depth and self.model.shows_what_it_saw
        self.decoder = decoder if warp and self.camera_depth else None
        self.border = BORDERS[self.model.bench]
        self.pipeline = ImagePipeline(
            env_hw_px=self.border.picture_hw_px(self.model),
            model_hw_px=self.model.image_hw_px,
            crop_frac=self.border.crop_frac,
        )
        self._prompts: OrderedDict[str, TextContext] = OrderedDict()

    @torch.no_grad()
    def begin(
        self,
        rgb_vhwc_u8: np.ndarray,
        proprio: np.ndarray,
        instruction: str,
        *,
        seed: int,
        depth_vhw_m: np.ndarray | None = None,
        cameras: tuple[np.ndarray, np.ndarray] | None = None,
        after: Underway | None = None,
        given_actions: np.ndarray | None = None,
    ) -> Request:
        """Return a request before its first pass.

        Args:
            rgb_vhwc_u8: V,H,W,3, what the bench's cameras show now.
            proprio: 16 numbers, the bench's state now.
            instruction: The prompt.
            seed: Fixes all of its noise; drawn on the CPU, so that it is the same on every device.
            depth_vhw_m: V,H,W metres, what the cameras measure now; only read with `camera_depth`.
            cameras: Their V,3,3 intrinsics and V,4,4 `T_base_cam`; only the decoder asks.
            after: The chunk that is still being executed, for real-time chunking; None to start from a halt.
            given_actions: K,14 in the bench's layout, whose outcome is to be imagined; None to let the model act.
        """
        model, bounds = self.model, self.model.bounds
        seen = self._pictures(rgb_vhwc_u8)
        known = self.border.axes.model_from_sim(proprio, model.arms)
        known = actions.with_quaternions_near(known, model.arms, model.quat_side_wxyz)
        known = actions.normalise(known, bounds.proprio_low, bounds.proprio_high)
        video, action, states = noise.draw_noise(
            seed,
            (1, *model.latent_shape),
            (1, model.num_actions, model.network.action_dim),
            (1, 1 + model.num_future_frames, model.network.proprio_dim),
        )
        state = sampler.begin(
            self.schedule,
            noise_video_BCTVHW=video.to(self.device),
            noise_action_BKA=action.to(self.device),
            noise_proprio_BPS=states.to(self.device),
            seen_latent_BCVHW=codecs.encode_views(self.codec, seen[:, :, None])[:, :, 0].to(self.device),
            seen_proprio_BS=torch.from_numpy(known)[None].to(self.device),
            text=self.prompt(instruction),
            null_text=self.prompt("") if self.schedule.guidance else None,
            commitment=None if after is None else after.commitment(),
            given_action_BKA=None if given_actions is None else self._known(given_actions, proprio),
        )
        start = proprio if after is None else self._commanded(after.request, after.executed)
        measured = self.camera_depth and depth_vhw_m is not None
        seen_depth = self._depth_video(np.asarray(depth_vhw_m)[None])[:, :, 0] if measured else None
        scene = None
        if self.decoder is not None and seen_depth is not None and cameras is not None:
            hand = ee_pose(self.border.axes.model_from_sim(proprio, model.arms)[ARM_PROPRIO[model.arms[0]]])
            scene = Scene(
                depth_vhw_m=depth_from_video(seen_depth[0, 0, model.static_views].numpy(), model.depth_range),
                intrinsics_v33_px=cameras[0][model.static_views],
                T_base_cam_v44=cameras[1][model.static_views],
                T_base_ee=hand,
            )
        return Request(state=state, seen_BCVHW=seen, seen_depth_BCVHW=seen_depth, scene=scene, start=start)

    @torch.no_grad()
    def act(self, request: Request) -> tuple[np.ndarray, Request]:
        """Return the clean actions, K,14 float32 in the bench's layout, and the request as it stands then.

        Where actions are given, this phase only finds the states that go with them. The video then starts anew, so
        that actions and states are clean in every pass of it, as in the clean half of training (equation 4).
        """
        schedule = self.schedule
        if request.state.given is not None:
            state = self._with_states(request.state)
        else:
            video_done = schedule.num_action_steps == schedule.num_video_steps  # no later pass for depth
            state = sampler.run(self.network, request.state, stop_after_actions=True, depth=video_done)
        request = replace(request, state=state)
        return self.actions(request), request

    def _with_states(self, state: sampler.SamplerState) -> sampler.SamplerState:
        """Return a request whose actions are given with the states that go with them; its video is still all noise."""
        num_steps = max(LEAST_STATE_STEPS, self.schedule.num_action_steps)
        slow = replace(
            self.schedule, num_action_steps=num_steps, num_video_steps=max(num_steps, self.schedule.num_video_steps)
        )
        found = sampler.run(self.network, replace(state, schedule=slow), stop_after_actions=True, depth=False)
        clean = self.schedule.num_action_steps
        return replace(
            state,
            action=UniPCState(x=found.action.x, step_idx=clean),
            proprio=UniPCState(x=found.proprio.x, step_idx=clean),
        )

    def actions(self, request: Request) -> np.ndarray:
        """Return the clean actions of a request in the bench's layout."""
        return self.border.env_actions(self._clean(request), request.start, self.model.arms)

    def _known(self, given_actions: np.ndarray, proprio: np.ndarray) -> Tensor:
        """Return actions of the bench, K,14, as the network knows them, 1,K,A."""
        known, bounds = self.border.model_actions(given_actions, proprio, self.model.arms), self.model.bounds
        return torch.from_numpy(actions.normalise(known, bounds.action_low, bounds.action_high))[None].to(self.device)

    def _clean(self, request: Request) -> np.ndarray:
        """Return the clean actions of a request, K,14, denormalised."""
        bounds = self.model.bounds
        return actions.denormalise(request.state.action.x[0].cpu().numpy(), bounds.action_low, bounds.action_high)

    def _commanded(self, request: Request, executed: int) -> np.ndarray:
        """Return the state that the first `executed` actions command, 16 numbers as the bench knows it.

        An arm lags behind its commands. Were the next chunk summed up from where the arm is, the commanded pose would
        jump back by that lag.
        """
        if executed == 0:
            return request.start
        arms, axes = self.model.arms, self.border.axes
        states = accumulate(self._clean(request)[:executed], axes.model_from_sim(request.start, arms), arms)
        return axes.sim_from_model(states[-1], arms)

    @torch.no_grad()
    def imagine(self, request: Request) -> Future:
        """Return the future; the passes that are left run now, the last one with the depth branch on."""
        model = self.model
        state = sampler.run(self.network, request.state)
        video, depth = self._latents(state)
        rgb_BCFVHW = codecs.decode_views(self.codec, video.cpu(), request.seen_BCVHW)[:, :, 1:]
        states = state.proprio.x[0, 1:].cpu().numpy()
        states = actions.denormalise(states, model.bounds.proprio_low, model.bounds.proprio_high)
        states = actions.tidy_quaternions(states, model.arms)
        future = Future(
            rgb=rgb_from_video(self._to_env(rgb_BCFVHW)),
            depth=None if depth is None else self._metres(depth.cpu(), request.seen_depth_BCVHW),
            proprio=self.border.axes.sim_from_model(states, model.arms).astype(np.float32),
        )
        if request.scene is not None and depth is not None:
            self._draw(future, request, request.scene, video, depth, states)
        return future

    def _draw(
        self, future: Future, request: Request, scene: Scene, video: Tensor, depth: Tensor, states: np.ndarray
    ) -> None:
        """Put what the decoder draws into the static views of a future; states are the model's, F,16."""
        assert isinstance(self.codec, codecs.PatchDCT), "what a decoder is trained for"
        assert self.decoder is not None, "there is a scene"
        assert request.seen_depth_BCVHW is not None, "there is a scene"
        assert future.depth is not None, "the network gave depth"
        views, count = self.model.static_views, self.model.num_future_frames
        hands_f44 = ee_pose(states[:, ARM_PROPRIO[self.model.arms[0]]])
        hints = torch.from_numpy(hand_hints(scene, hands_f44, [(frame + 1) / count for frame in range(count)]))
        change = codecs.change_of_views(self.codec, *(latent[0][:, 1:, views].cpu() for latent in (video, depth)))
        seen = torch.cat([request.seen_BCVHW[0][:, views], request.seen_depth_BCVHW[0, :1][:, views]]).transpose(0, 1)
        device = next(self.decoder.parameters()).device
        drawn = self.decoder(*(part.flatten(0, 1).to(device) for part in (seen[None].expand_as(change), change, hints)))
        rgb_CFVHW = drawn.blended_NCHW[:, :3].cpu().unflatten(0, (count, len(views))).permute(2, 0, 1, 3, 4)
        grey_FVHW = drawn.sharp_NCHW[:, 3].cpu().unflatten(0, (count, len(views)))
        future.rgb[:, views] = rgb_from_video(rgb_CFVHW)
        future.depth[:, views] = depth_from_video(grey_FVHW.numpy(), self.model.depth_range)

    @torch.no_grad()
    def round_trip(
        self, rgb_fvhwc_u8: np.ndarray, depth_fvhw_m: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return a future after pictures and codec, there and back: what the network could give at best.

        The first frame stands for the one that a request would have seen; it comes before the future once more.

        Args:
            rgb_fvhwc_u8: F,V,H,W,3 in the bench's pixels.
            depth_fvhw_m: F,V,H,W metres, or None.
        """
        count = len(rgb_fvhwc_u8)
        frames = [0, *range(count), *[count - 1] * (-count % LATENT_STRIDES[0])]
        video = torch.stack([self._pictures(rgb_fvhwc_u8[frame]) for frame in frames], dim=2)
        decoded = codecs.decode_views(self.codec, codecs.encode_views(self.codec, video), video[:, :, 0])
        rgb = rgb_from_video(self._to_env(decoded[:, :, 1 : count + 1]))
        if depth_fvhw_m is None:
            return rgb, None
        grey = self._depth_video(depth_fvhw_m[frames])
        metres = self._metres(codecs.encode_views(self.codec, grey), grey[:, :, 0] if self.camera_depth else None)
        return rgb, metres[:count]

    def prompt(self, text: str) -> TextContext:
        """Return a prompt as the blocks read it; the most recent ones are kept."""
        context = self._prompts.pop(text, None)
        if context is None:
            context = self.network.encode_text(self.text_encoder.encode(text)[None].to(self.device))
            context = self.network.with_depth_text(context)
        self._prompts[text] = context
        if len(self._prompts) > MAX_PROMPTS:
            self._prompts.popitem(last=False)
        return context

    def _latents(self, state: sampler.SamplerState) -> tuple[Tensor, Tensor | None]:
        """Return the clean latents of video and, where there is one, of depth."""
        network = self.model.network
        if network.depth in ("sequence", "channel"):
            video, depth = state.video.x.chunk(2, dim=1)
            return video, depth
        return state.video.x, state.depth_BCTVHW

    def _pictures(self, rgb_vhwc_u8: np.ndarray) -> Tensor:
        """Return the bench's pictures as the model sees them, B,3,V,H,W in [-1, 1]."""
        video_BCVHW = video_from_rgb(rgb_vhwc_u8)
        seen_BCVHW = self.pipeline.to_model(video_BCVHW[0].transpose(0, 1)).transpose(0, 1)[None]
        return torch.zeros_like(seen_BCVHW) if self.model.blind else seen_BCVHW

    def _to_env(self, video_BCFVHW: Tensor) -> Tensor:
        """Return a video of the model in the bench's pixels, C,F,V,H,W."""
        channels, frames = video_BCFVHW.shape[1:3]
        flat = video_BCFVHW[0].flatten(0, 2)[:, None]
        return self.pipeline.to_env(flat).unflatten(0, (channels, frames, -1))[:, :, :, 0]

    def _depth_video(self, depth_fvhw_m: np.ndarray) -> Tensor:
        """Return the bench's depth as the model's depth video, 1,3,F,V,H,W in [-1, 1]."""
        grey = torch.from_numpy(video_from_depth(depth_fvhw_m, self.model.depth_range))
        grey = self.pipeline.to_model(grey.flatten(0, 1)[:, None], "nearest-exact")[:, 0].unflatten(
            0, (len(depth_fvhw_m), -1)
        )
        return grey[None, None].expand(-1, 3, -1, -1, -1, -1)

    def _metres(self, latent_BCTVHW: Tensor, seen_BCVHW: Tensor | None) -> np.ndarray:
        grey = codecs.decode_views(self.codec, latent_BCTVHW, seen_BCVHW)[:, :, 1:].mean(1, keepdim=True)
        return depth_from_video(self._to_env(grey)[0].numpy(), self.model.depth_range)


def video_from_rgb(rgb_vhwc_u8: np.ndarray) -> Tensor:
    """Return pictures as B,3,V,H,W in [-1, 1]."""
    return torch.from_numpy(np.array(rgb_vhwc_u8)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def rgb_from_video(video_CFVHW: Tensor) -> np.ndarray:
    """Return a video in [-1, 1] as F,V,H,W,3 uint8."""
    bytes_CFVHW = ((video_CFVHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return bytes_CFVHW.permute(1, 2, 3, 4, 0).contiguous().numpy()
