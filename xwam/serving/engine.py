"""One request through the whole model: observation in, actions out, and the imagined future when asked.

In: a `Seen` (images, state, prompt) and a seed. Out: a state of denoising, which any number of passes may carry on.
Read next: `stepped.py` for what all engines share, `imagine.py` for the start of a request, `xwam/flow/sampler.py` for
the passes, `finisher.py` for what happens to clean latents, `xwam/policy.py` for the caller.

Letters: B batch (1 here), C channels, F future frames, V views, H W pixels, K actions.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from evalkit.contracts.errors import EpisodeFault
from evalkit.contracts.stepped import Phase
from evalkit.contracts.types import CommittedActions, Prediction
from xwam.checkpoints.bundle import Bundle
from xwam.config import LEAST_STATE_STEPS
from xwam.flow import sampler
from xwam.flow.realtime_chunking import Commitment, commit
from xwam.flow.unipc import UniPCState
from xwam.serving.finisher import Finisher, PlainFinisher, round_trip
from xwam.serving.images import BenchImages
from xwam.serving.imagine import Observations, start
from xwam.serving.numbers import RobotNumbers
from xwam.serving.prompts import PROMPT_BYTES, PromptStore
from xwam.serving.seen import Seen
from xwam.serving.stepped import SteppedEngine


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """A request under way.

    Attributes:
        state: The state of its denoising.
        context: From the finisher's `prepare`.
        start: The state, in the bench's frames, from which its first action starts: the observed one after a halt, the
            last commanded one if it joins a chunk under execution. An arm lags behind its commands: from the pose of
            the arm, the commanded pose would jump back by that lag.
        predict: Whether a prediction is wanted; else it is done when its actions are clean, and nothing predicts depth.
        later: With given actions, what is denoised once the states that follow from them are clean: the video, which
            starts from noise, so that actions and states are clean in all its passes, as in the clean half of training
            (equation 4). None in the video phase, and where the model acts.
    """

    state: sampler.SamplerState
    context: Any
    start: np.ndarray
    predict: bool = True
    later: sampler.SamplerState | None = None

    @property
    def phase(self) -> Phase:
        """Return what the next pass is for; given actions are clean from the start."""
        if self.state.given is None and not self.state.actions_clean:
            return Phase.ACTIONS
        wants_video = self.predict and (self.later is not None or not self.state.done)
        return Phase.VIDEO if wants_video else Phase.DONE

    @property
    def passes_left(self) -> int:
        """Return how many passes are missing."""
        if self.phase is Phase.DONE:
            return 0
        if self.later is not None:
            return self.state.passes_to_actions + self.later.passes_to_video
        return self.state.passes_to_video if self.predict else self.state.passes_to_actions

    @property
    def group(self) -> Hashable:
        """Return what requests must have in common to share a pass."""
        return self.state.group

    def after(self, state: sampler.SamplerState) -> Request:
        """Return the request with its next state; once states are clean, the video of given actions begins."""
        if self.later is None or not state.actions_clean:
            return replace(self, state=state)
        done = self.later.schedule.num_action_steps
        action, proprio = (UniPCState(x=part.x, step_idx=done) for part in (state.action, state.proprio))
        return replace(self, state=replace(self.later, action=action, proprio=proprio), later=None)


class Engine(SteppedEngine[Request]):
    """A model with the interface of its bench; stateless except for its store of prompts.

    Args:
        bundle: Configuration, network, codec and text encoder.
        schedule: Step counts and guidance.
        finisher: Turns clean latents into predictions; the codec alone if not given.
        prompt_bytes: Largest memory of stored prompts.
        width: Rows of every pass.
        denoiser: What makes the passes; the bundle's network if not given.
        few_sizes: Whether prompts are filled up to a bucket in passes of one row too, for compiled or recorded passes.
    """

    def __init__(
        self,
        bundle: Bundle,
        schedule: sampler.Schedule,
        finisher: Finisher | None = None,
        *,
        prompt_bytes: int = PROMPT_BYTES,
        width: int = 1,
        denoiser: sampler.Denoiser | None = None,
        few_sizes: bool = False,
    ) -> None:
        super().__init__(width=width)
        self.bundle, self.schedule = bundle, schedule
        self.model, self.network, self.codec = bundle.model, bundle.network, bundle.codec
        self.denoiser: sampler.Denoiser = self.network if denoiser is None else denoiser
        self.finisher: Finisher = finisher or PlainFinisher(self.model, self.codec)
        self.numbers, self.images = RobotNumbers(self.model), BenchImages(self.model)
        self.prompts = PromptStore(bundle, max_bytes=prompt_bytes, in_buckets=width > 1 or few_sizes)

    @torch.inference_mode()
    def begin(
        self,
        seen: Seen,
        *,
        seed: int,
        committed: CommittedActions | None = None,
        given_actions: np.ndarray | None = None,
        predict: bool = True,
    ) -> Request:
        """Return a request before its first pass.

        Args:
            seen: The present.
            seed: Fixes all of its noise.
            committed: What is left of the chunk under execution, for real-time chunking; None to start from a halt.
            given_actions: K,14 in the bench's layout, whose outcome is to be imagined; None to let the model act.
            predict: Whether a prediction is wanted.
        """
        seen_BCVHW = self.images.rgb_to_model(seen.rgb_vhwc_u8)
        observations = Observations(
            seen_BCVHW=seen_BCVHW,
            proprio_BS=self.numbers.state(seen.proprio),
            text=self.prompts.read(seen.instruction),
        )
        given, commitment, start_state = None, None, seen.proprio
        if committed is not None:
            start_state = self.numbers.commanded(committed.last, seen.proprio)
            commitment = self._commitment(committed, start_state)
        if given_actions is not None:
            given = self.numbers.known_actions(given_actions, seen.proprio).to(self.network.device)
        state = start(
            self.bundle,
            observations,
            self.schedule,
            seed=seed,
            null_text=self.prompts.read("") if self.schedule.guidance else None,
            commitment=commitment,
            given_action_BKA=given,
        )
        return Request(
            state=state if given is None else replace(state, schedule=self._of_states()),
            context=self.finisher.prepare(seen, seen_BCVHW),
            start=start_state,
            predict=predict,
            later=None if given is None else state,
        )

    def _of_states(self) -> sampler.Schedule:
        """Return the schedule of the states that follow from given actions."""
        num_steps = max(LEAST_STATE_STEPS, self.schedule.num_action_steps)
        num_video_steps = max(num_steps, self.schedule.num_video_steps)
        return replace(self.schedule, num_action_steps=num_steps, num_video_steps=num_video_steps)

    def _commitment(self, committed: CommittedActions, start: np.ndarray) -> Commitment:
        """Return the actions that the robot executes meanwhile, as the network's next chunk must join them.

        Raises:
            EpisodeFault: If they end before the reply arrives, or the chunk is shorter; it is the harness's fault.
        """
        left = self.numbers.known_actions(committed.actions, start).float().to(self.network.device)
        as_prefix = committed.strategy == "prefix"
        try:
            return commit(left, num_actions=self.model.num_actions, delay=committed.delay, as_prefix=as_prefix)
        except ValueError as error:
            raise EpisodeFault("harness", str(error)) from error

    def act(self, request: Request) -> tuple[np.ndarray, Request]:
        """Return the clean actions, K,14 float32 in the bench's layout, and the request as it stands then.

        Given actions stay as they are; this predicts the states that follow from them.
        """
        while request.later is not None:
            (request,) = self.step([request])
        return super().act(request)

    def shared_pass(self, requests: Sequence[Request]) -> list[Request]:
        """Return the requests after one pass; the depth branch runs if it is the last one of a wanted prediction."""
        depth = any(request.predict and request.passes_left == 1 for request in requests)
        states = sampler.advance(self.denoiser, [request.state for request in requests], depth=depth)
        return [request.after(state) for request, state in zip(requests, states, strict=True)]

    def actions(self, request: Request) -> np.ndarray:
        """Return the clean actions of a request in the bench's layout.

        With guidance, the first ones are those before the committed ones took their place.
        """
        state = request.state
        actions = self.numbers.commands(state.action.x[0], request.start)
        if state.commitment is not None and state.free_action_BKA is not None:
            delay = state.commitment.delay
            actions[:delay] = self.numbers.commands(state.free_action_BKA[0], request.start)[:delay]
        return actions

    @torch.inference_mode()
    def prediction(self, request: Request, num_frames: int | None = None) -> Prediction:
        """Return the prediction of a request that is done.

        Args:
            request: It was begun with `predict`.
            num_frames: Future frames of the prediction, the first ones; all if not given. The network predicts all of
                them together. Decoding them costs far more than its passes and is left out for the others.
        """
        model, state = self.model, request.state
        num_frames = model.num_future_frames if num_frames is None else num_frames
        states = self.numbers.states(state.proprio.x[0, 1 : 1 + num_frames])
        return self.finisher.finish(sampler.latents_of(state).first(num_frames), states, request.context)

    @torch.inference_mode()
    def round_trip(self, future: Prediction) -> Prediction:
        """Return a future after encoding and decoding: the best that the network could give."""
        return round_trip(future, self.model, self.codec, self.finisher)
