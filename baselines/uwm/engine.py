"""One request through UWM: observation in, actions out, the imagined future when it is asked for.

In: a `Seen` (images, state, prompt) and a seed. Out: commands of the bench; a prediction of RGB images and states.
Read next: `sampling.py` for the passes, `uses.py` for the uses, `policy.py` for the caller.

Letters: B batch (1 here), C channels, T latent frames, F future frames, V views, H W pixels, K actions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from baselines.uwm.sampling import Denoising, Groups, begin, run
from baselines.uwm.uses import FORWARD_DYNAMICS, INVERSE_DYNAMICS, JOINT, POLICY, USES, VIDEO
from evalkit.contracts.types import Prediction
from xwam.checkpoints.bundle import Bundle
from xwam.codecs.codec import encode_views
from xwam.flow.losses import Batch
from xwam.flow.noise import draw_noise
from xwam.flow.sampler import Latents
from xwam.network.transformer import TextContext
from xwam.serving.finisher import PlainFinisher, round_trip
from xwam.serving.images import BenchImages
from xwam.serving.imagine import Imagined, Observations
from xwam.serving.numbers import RobotNumbers
from xwam.serving.prompts import PROMPT_BYTES, PromptStore
from xwam.serving.seen import Seen


@dataclass(frozen=True, kw_only=True, eq=False)
class UwmRequest:
    """A request under way.

    Attributes:
        state: Its denoising: actions alone, actions with the observation, or the observation of given actions.
        noise: All of its noise, of which a later use starts again.
        context: From the finisher's `prepare`.
        proprio: The present state, as the bench gives it.
        executed_BKA: After `act`: the clean actions as the bench executes them, normalised. They differ from the
            network's where the bench clips them.
    """

    state: Denoising
    noise: Groups
    context: Any
    proprio: np.ndarray
    executed_BKA: torch.Tensor | None = None


class UwmEngine:
    """A model with the interface of its bench; stateless except for its store of prompts.

    Args:
        bundle: Configuration, network, codec and text encoder.
        use: How it acts, `joint` or `policy` (the marginal one).
        num_steps: Passes of each use.
        predict_video: Whether predictions are those of the use `video`, without any actions; else they are those of its
            own actions.
        guidance: Weight of the prompt; 0 for one conditional pass in each step.
        prompt_bytes: Largest memory of stored prompts.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        use: str,
        num_steps: int,
        predict_video: bool = False,
        guidance: float = 0.0,
        prompt_bytes: int = PROMPT_BYTES,
    ) -> None:
        self.bundle, self.use, self.num_steps, self.guidance = bundle, use, num_steps, guidance
        self.predict_video = predict_video
        self.model, self.network = bundle.model, bundle.network
        self.finisher = PlainFinisher(self.model, bundle.codec)
        self.numbers, self.images = RobotNumbers(self.model), BenchImages(self.model)
        self.prompts = PromptStore(bundle, max_bytes=prompt_bytes)

    @torch.inference_mode()
    def begin(self, seen: Seen, *, seed: int, given_actions: np.ndarray | None = None) -> UwmRequest:
        """Return a request before its first pass.

        Args:
            seen: The present.
            seed: Fixes all of its noise.
            given_actions: K,14 in the bench's layout, whose outcome is to be imagined; None to let the model act.
        """
        seen_BCVHW = self.images.rgb_to_model(seen.rgb_vhwc_u8)
        observations = Observations(
            seen_BCVHW=seen_BCVHW,
            proprio_BS=self.numbers.state(seen.proprio),
            text=self.prompts.read(seen.instruction),
        )
        noise, given = noise_of(self.bundle, seed, 1), None
        if given_actions is not None:
            known = self.numbers.known_actions(given_actions, seen.proprio).to(self.network.device)
            given = noise._replace(action_BKA=known)
        state = begin(
            USES[self.use if given is None else FORWARD_DYNAMICS],
            self.num_steps,
            noise,
            present=present_of(self.bundle, observations),
            text=observations.text,
            given=given,
            null_text=self.prompts.read("") if self.guidance else None,
            guidance=self.guidance,
        )
        context = self.finisher.prepare(seen, seen_BCVHW)
        return UwmRequest(state=state, noise=noise, context=context, proprio=seen.proprio)

    @torch.inference_mode()
    def act(self, request: UwmRequest) -> tuple[np.ndarray, UwmRequest]:
        """Return the clean actions, K,14 float32 in the bench's layout, and the request as it stands then.

        Given actions are clean already; no pass runs for them.
        """
        if request.state.use != USES[FORWARD_DYNAMICS]:
            request = replace(request, state=run(self.network, request.state))
        commands = self.numbers.commands(request.state.values.action_BKA[0], request.proprio)
        executed_BKA = self.numbers.known_actions(commands, request.proprio).to(self.network.device)
        return commands, replace(request, executed_BKA=executed_BKA)

    @torch.inference_mode()
    def imagine(self, request: UwmRequest, num_frames: int | None = None) -> Prediction:
        """Return the prediction for the request's actions.

        The joint use has denoised it with the actions. After the marginal one, forward dynamics of its own actions, as
        they are executed, runs now, as it does for given actions. With `predict_video`, the use `video` runs now.

        Args:
            request: Its actions are clean.
            num_frames: Future frames of the prediction, the first ones; all if not given.
        """
        count = self.model.num_future_frames if num_frames is None else num_frames
        values = run(self.network, self._with_observation(request)).values
        states = self.numbers.states(values.proprio_BPS[0, 1 : 1 + count])
        return self.finisher.finish(Latents(values.video_BCTVHW, None).first(count), states, request.context)

    def _with_observation(self, request: UwmRequest) -> Denoising:
        """Return a state whose observation is denoised, or will be."""
        state = request.state
        if state.use != USES[POLICY] and not self.predict_video:
            return state
        values = state.values
        assert request.executed_BKA is not None, "its actions are clean"
        return begin(
            USES[VIDEO if self.predict_video else FORWARD_DYNAMICS],
            self.num_steps,
            request.noise,
            present=(values.video_BCTVHW[:, :, 0], values.proprio_BPS[:, 0]),
            text=state.text,
            given=values._replace(action_BKA=request.executed_BKA),
            null_text=state.null_text,
            guidance=self.guidance,
        )

    @torch.inference_mode()
    def round_trip(self, future: Prediction) -> Prediction:
        """Return a future after encoding and decoding: the best that the network could give."""
        return round_trip(future, self.model, self.bundle.codec, self.finisher)


def noise_of(bundle: Bundle, seed: int, count: int) -> Groups:
    """Return the noise of requests, drawn on the CPU in the order of X-WAM's, so that it is the same everywhere."""
    model = bundle.model
    drawn = draw_noise(
        seed,
        (count, *model.latent_shape),
        (count, model.num_actions, model.network.action_dim),
        (count, 1 + model.num_future_frames, model.network.proprio_dim),
    )
    return Groups(*(tensor.to(bundle.network.device) for tensor in drawn))


def present_of(bundle: Bundle, observations: Observations) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the latents of the present frame, B,C,V,H,W, and the present state, B,S, on the network's device."""
    latent_BCVHW = encode_views(bundle.codec, observations.seen_BCVHW[:, :, None])[:, :, 0]
    return latent_BCVHW.to(bundle.network.device), observations.proprio_BS.to(bundle.network.device)


@torch.no_grad()
def imagine_jointly(bundle: Bundle, observations: Observations, num_steps: int, *, seed: int) -> Imagined:
    """Return what a model imagines together with its actions, for the validation in training."""
    state = begin(
        USES[JOINT],
        num_steps,
        noise_of(bundle, seed, len(observations.seen_BCVHW)),
        present=present_of(bundle, observations),
        text=observations.text,
    )
    video, action, proprio = run(bundle.network, state).values
    return Imagined(Latents(video, None), action, proprio)


@torch.no_grad()
def infer_actions(bundle: Bundle, batch: Batch, text: TextContext, num_steps: int, *, seed: int) -> torch.Tensor:
    """Return the actions that lead through the frames and states of clips, B,K,A, normalised: inverse dynamics."""
    noise = noise_of(bundle, seed, len(batch.video_BCTVHW))
    state = begin(
        USES[INVERSE_DYNAMICS],
        num_steps,
        noise,
        present=(batch.video_BCTVHW[:, :, 0], batch.proprio_BPS[:, 0]),
        text=text,
        given=noise._replace(video_BCTVHW=batch.video_BCTVHW, proprio_BPS=batch.proprio_BPS),
    )
    return run(bundle.network, state).values.action_BKA
