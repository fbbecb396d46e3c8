"""One request through UWM: observation in, actions out, the imagined future when it is asked for.

In: a `Seen` (images, state, prompt) and a seed. Out: commands of the bench; a prediction of RGB images and states.
Read next: `sampling.py` for the passes, `uses.py` for the uses, `policy.py` for the caller.

Letters: B batch (1 here), C channels, T latent frames, F future frames, V views, H W pixels, K actions.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from baselines.uwm.sampling import Denoising, Groups, advance, begin, run
from baselines.uwm.uses import FORWARD_DYNAMICS, INVERSE_DYNAMICS, JOINT, POLICY, USES, VIDEO
from evalkit.contracts.stepped import Phase
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
from xwam.serving.stepped import SteppedEngine


@dataclass(frozen=True, kw_only=True, eq=False)
class UwmRequest:
    """A request under way.

    Attributes:
        state: Its denoising: actions alone, actions with the observation, or the observation of given actions or of
            none.
        noise: All of its noise, of which a later use starts again.
        context: From the finisher's `prepare`.
        proprio: The present state, as the bench gives it.
        predict: Whether a prediction is wanted; else it is done when its actions are clean.
        follows: The use that denoises the prediction once the actions are clean; None if none has to begin.
        commands: The clean actions, K,14 in the bench's layout; None while they are denoised.
    """

    state: Denoising
    noise: Groups
    context: Any
    proprio: np.ndarray
    predict: bool = True
    follows: str | None = None
    commands: np.ndarray | None = None

    @property
    def phase(self) -> Phase:
        """Return what the next pass is for; given actions are clean from the start."""
        if self.commands is None:
            return Phase.ACTIONS
        return Phase.VIDEO if self.predict and not self.state.done else Phase.DONE

    @property
    def passes_left(self) -> int:
        """Return how many passes are missing."""
        if self.phase is Phase.DONE:
            return 0
        return self.state.passes_left + (0 if self.follows is None else self.state.num_steps)

    @property
    def group(self) -> Hashable:
        """Return what requests must have in common to share a pass."""
        return self.state.group


class UwmEngine(SteppedEngine[UwmRequest]):
    """A model with the interface of its bench; stateless except for its store of prompts.

    Args:
        bundle: Configuration, network, codec and text encoder.
        use: How it acts, `joint` or `policy` (the marginal one).
        num_steps: Passes of each use.
        predict_video: Whether predictions are those of the use `video`, without any actions; else they are those of its
            own actions.
        guidance: Weight of the prompt; 0 for one conditional pass in each step.
        prompt_bytes: Largest memory of stored prompts.
        width: Rows of every pass.
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
        width: int = 1,
    ) -> None:
        super().__init__(width=width)
        self.bundle, self.use, self.num_steps, self.guidance = bundle, use, num_steps, guidance
        self.predict_video = predict_video
        self.model, self.network = bundle.model, bundle.network
        self.finisher = PlainFinisher(self.model, bundle.codec)
        self.numbers, self.images = RobotNumbers(self.model), BenchImages(self.model)
        self.prompts = PromptStore(bundle, max_bytes=prompt_bytes, in_buckets=width > 1)

    @torch.inference_mode()
    def begin(
        self, seen: Seen, *, seed: int, given_actions: np.ndarray | None = None, predict: bool = True
    ) -> UwmRequest:
        """Return a request before its first pass.

        Args:
            seen: The present.
            seed: Fixes all of its noise.
            given_actions: K,14 in the bench's layout, whose outcome is to be imagined; None to let the model act.
            predict: Whether a prediction is wanted.
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
        return UwmRequest(
            state=state,
            noise=noise,
            context=context,
            proprio=seen.proprio,
            predict=predict,
            follows=self._follows() if predict and given is None else None,
            commands=given_actions,
        )

    def shared_pass(self, requests: Sequence[UwmRequest]) -> list[UwmRequest]:
        """Return the requests after one pass."""
        states = advance(self.network, [request.state for request in requests])
        return [self._after(request, state) for request, state in zip(requests, states, strict=True)]

    def actions(self, request: UwmRequest) -> np.ndarray:
        """Return the clean actions of a request in the bench's layout."""
        assert request.commands is not None, "its actions are clean"
        return request.commands

    def _after(self, request: UwmRequest, state: Denoising) -> UwmRequest:
        """Return the request with its next state; once its actions are clean, a use that follows begins."""
        if request.commands is not None or not state.done:
            return replace(request, state=state)
        commands, values = self.numbers.commands(state.values.action_BKA[0], request.proprio), state.values
        if request.follows is not None:
            executed_BKA = self.numbers.known_actions(commands, request.proprio).to(self.network.device)
            state = begin(
                USES[request.follows],
                self.num_steps,
                request.noise,
                present=(values.video_BCTVHW[:, :, 0], values.proprio_BPS[:, 0]),
                text=state.text,
                given=values._replace(action_BKA=executed_BKA),
                null_text=state.null_text,
                guidance=self.guidance,
            )
        return replace(request, state=state, commands=commands, follows=None)

    def _follows(self) -> str | None:
        """Return the use that denoises a prediction after the actions.

        The joint use has denoised it with the actions. After the marginal one it is forward dynamics of its own
        actions, as they are executed; with `predict_video`, the use `video`.
        """
        if self.predict_video:
            return VIDEO
        return FORWARD_DYNAMICS if self.use == POLICY else None

    @torch.inference_mode()
    def prediction(self, request: UwmRequest, num_frames: int | None = None) -> Prediction:
        """Return the first future frames of a request that is done; all if no number is given."""
        count = self.model.num_future_frames if num_frames is None else num_frames
        values = request.state.values
        states = self.numbers.states(values.proprio_BPS[0, 1 : 1 + count])
        return self.finisher.finish(Latents(values.video_BCTVHW, None).first(count), states, request.context)

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
