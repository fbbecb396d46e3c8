"""One recorded episode: of an expert under disturbances, of a robot that refuses, or of any policy.

In: an env, a planned episode, an expert or a policy. Out: observations, intended and executed actions of each step.
Read next: `workers.py`, which writes many of them; `evalkit/contracts/policy.py`, what an expert offers.

Demonstrations: a learner that saw only undisturbed experts cannot recover from its own errors. Therefore the robot
starts displaced, its actions are noisy, and now and then it is dragged for some steps; the action to learn is always
the one that the expert intended.

Take-over: the expert starts where a learner's own errors have led (DAgger, Ross et al. 2011, with the expert's own path
in place of relabelled steps, because a chunk is a path).

Refusals: where each task has a scene of its own, a learner need not read the instruction. Therefore some episodes give
an instruction that cannot be done in the scene, and the robot stands still.

Rollouts: any policy acts without disturbances; training on what a network predicts needs its own actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import NamedTuple

import numpy as np

from evalkit.contracts.env import Env
from evalkit.contracts.policy import Expert, Policy
from evalkit.contracts.requests import EpisodeRequests
from evalkit.contracts.spec import check_actions, past_offsets, still_action
from evalkit.contracts.types import (
    ACTION_DIM,
    ARM_ACTION,
    GRIPPER,
    ROTVEC_RAD,
    TRANSLATION,
    Episode,
    Observation,
)
from evalkit.dataset.writer import Steps

OPEN = 1.0
"""Gripper number of an action that opens."""


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """Strength of the disturbances of an expert; an action of 1 is 0.05 m or 0.5 rad.

    Attributes:
        translation_std: Largest standard deviation of the noise on a translation; each episode draws its share of it.
        rotation_std: Largest standard deviation of the noise on a rotation; scaled by the same share.
        burst_prob: Probability, at each step, that a drag begins.
        burst_steps: Fewest and most steps of a drag.
        displaced_frac: Share of episodes that start displaced.
        displaced_steps: Fewest and most steps of the displacement, which is not recorded.
    """

    translation_std: float = 0.3
    rotation_std: float = 0.06
    burst_prob: float = 0.015
    burst_steps: tuple[int, int] = (3, 6)
    displaced_frac: float = 0.6
    displaced_steps: tuple[int, int] = (4, 16)


NO_DISTURBANCE = Disturbance(translation_std=0.0, rotation_std=0.0, burst_prob=0.0, displaced_frac=0.0)


class Shift(NamedTuple):
    """The disturbance of one step.

    Attributes:
        move: 6 float32, in units of an action.
        drags: Whether it replaces the intended move; otherwise it is added.
    """

    move: np.ndarray
    drags: bool


class Moment(NamedTuple):
    """One control step: the observation before it, the intended and the executed action."""

    observation: Observation
    intended: np.ndarray
    executed: np.ndarray


class Learner(NamedTuple):
    """The policy that acts before the expert takes over, and its largest number of steps."""

    policy: Policy
    most_steps: int


class Rollout(NamedTuple):
    """A recorded episode, and whether the goal was met."""

    steps: Steps
    success: bool


Choose = Callable[[Observation], tuple[np.ndarray, np.ndarray]]
"""Returns the intended and the executed action for an observation."""


def demonstrate(
    env: Env,
    expert: Expert,
    episode: Episode,
    disturbance: Disturbance,
    *,
    learner: Learner | None = None,
    tail_steps: int = 4,
) -> Steps | None:
    """Return a recorded demonstration; None if the goal was met before it began, or not in time.

    Args:
        env: The task.
        expert: A fresh expert of the task.
        episode: Its seed fixes the scene and every disturbance.
        disturbance: Strength of the disturbances.
        learner: Acts before the expert, unrecorded; None to let the expert begin.
        tail_steps: Steps to record after the goal is met.

    Raises:
        EpisodeFault: If the learner's actions are not what the env needs.
    """
    rng = np.random.default_rng([episode.seed, 0xD15])
    if not _begin(env, episode, rng, disturbance) or (learner and _learner_succeeds(env, episode, rng, learner)):
        return None
    shifts = _shifts(rng, disturbance)

    def choose(observation: Observation) -> tuple[np.ndarray, np.ndarray]:
        intended = _intended(expert, observation)
        return intended, disturbed(intended, next(shifts))

    moments, met = _recorded(env, choose, max_steps=episode.max_steps, tail_steps=tail_steps)
    return _stacked(moments) if met else None


def refuse(
    env: Env,
    expert: Expert,
    episode: Episode,
    disturbance: Disturbance,
    *,
    most_steps_before: int = 60,
    num_steps: int = 24,
) -> Steps | None:
    """Return a recording of a robot that intends to stand still; None if the goal was met all the same.

    It stands anywhere on the path of the task's expert: a robot that drifts a little must not fall back into the task.

    Args:
        env: The task, which the instruction does not ask for.
        expert: A fresh expert of the task.
        episode: Its seed fixes the scene, where the robot stands, and every disturbance.
        disturbance: Strength of the disturbances.
        most_steps_before: Most steps of the expert that come before, unrecorded.
        num_steps: Recorded steps.
    """
    rng = np.random.default_rng([episode.seed, 0x5717])
    if not _begin(env, episode, rng, disturbance):
        return None
    shifts = _shifts(rng, disturbance)
    last = np.zeros(ACTION_DIM, np.float32)
    last[ARM_ACTION["left"]][GRIPPER] = OPEN
    for _ in range(rng.integers(most_steps_before, endpoint=True)):
        last = _intended(expert, Observation(**env.observe(render=False)))
        if env.advance(disturbed(last, next(shifts))):
            return None
    still = still_action(last, env.spec.action_layout)
    moments, met = _recorded(
        env, lambda observation: (still, disturbed(still, next(shifts))), max_steps=num_steps, tail_steps=0
    )
    return None if met else _stacked(moments)


def rollout(env: Env, policy: Policy, episode: Episode, *, tail_steps: int = 4) -> Rollout | None:
    """Return a recording of a policy; None if the goal was met at the start.

    Args:
        env: The task.
        policy: Acts; it is asked again after as many actions as its spec says.
        episode: Its seed fixes the scene.
        tail_steps: Steps to record after the goal is met.

    Raises:
        EpisodeFault: If an answer does not hold the actions that the env needs.
    """
    if env.begin(seed=episode.seed, max_steps=episode.max_steps):
        return None
    actions = _actions(env, policy, episode)

    def choose(observation: Observation) -> tuple[np.ndarray, np.ndarray]:
        action = next(actions)
        return action, action

    moments, met = _recorded(env, choose, max_steps=episode.max_steps, tail_steps=tail_steps)
    return Rollout(_stacked(moments[: episode.max_steps]), met)


def _recorded(env: Env, choose: Choose, *, max_steps: int, tail_steps: int) -> tuple[list[Moment], bool]:
    """Act until `tail_steps` after the goal is met, or for `max_steps`; return the steps and whether it was met."""
    moments: list[Moment] = []
    left, met = max_steps, False
    while left > 0:
        observation = Observation(**env.observe(render=True))
        intended, executed = choose(observation)
        moments.append(Moment(observation, intended, executed))
        left -= 1
        if env.advance(executed) and not met:
            met, left = True, tail_steps
    return moments, met


def _begin(env: Env, episode: Episode, rng: np.random.Generator, disturbance: Disturbance) -> bool:
    """Start an episode and perhaps displace the robot; return False if the goal is met at the start."""
    if env.begin(seed=episode.seed, max_steps=episode.max_steps):
        return False
    if rng.random() < disturbance.displaced_frac:
        _displace(env, rng, disturbance.displaced_steps)
    return True


def _learner_succeeds(env: Env, episode: Episode, rng: np.random.Generator, learner: Learner) -> bool:
    """Let the learner act for a random number of steps; return whether it met the goal."""
    num_steps = rng.integers(learner.most_steps, endpoint=True)
    return any(env.advance(action) for action in islice(_actions(env, learner.policy, episode), num_steps))


def _actions(env: Env, policy: Policy, episode: Episode) -> Iterator[np.ndarray]:
    """Yield a policy's actions; it observes and is asked again after as many as its spec says."""
    requests = EpisodeRequests(episode, policy.spec)
    requests.reset(policy, env.spec)
    step_idx, between = 0, list[np.ndarray]()
    for chunk_idx in count():
        observation = Observation(**env.observe(render=policy.spec.needs_images))
        request = requests.request(observation, chunk_idx=chunk_idx, step_idx=step_idx, between=between)
        (reply,) = policy.infer([request])
        check_actions(reply.actions, env.spec, policy.spec)
        chunk = reply.actions[: policy.spec.execute_steps]
        between = []
        for offset, action in enumerate(chunk, start=1):
            yield action
            if offset < len(chunk) and offset in past_offsets(policy.spec, len(chunk)):
                between.append(env.observe(render=True)["rgb"])
        step_idx += len(chunk)


def disturbed(intended: np.ndarray, shift: Shift) -> np.ndarray:
    """Return the action to execute: the intended one plus a shift, or the shift alone where it drags the robot.

    Example:
        >>> intended = np.float32([0.5] * 7 + [0] * 7)
        >>> disturbed(intended, Shift(np.float32([1.0] * 6), drags=False))[:7].tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5]
        >>> disturbed(intended, Shift(np.float32([-0.25] * 6), drags=True))[5:7].tolist()
        [-0.25, 0.5]
    """
    action = intended.copy()
    arm = action[ARM_ACTION["left"]]  # a view
    arm[:6] = np.clip(shift.move if shift.drags else arm[:6] + shift.move, -1.0, 1.0)
    return action


def _shifts(rng: np.random.Generator, disturbance: Disturbance) -> Iterator[Shift]:
    """Yield the disturbance of each step."""
    share = rng.random()
    std = share * np.repeat([disturbance.translation_std, disturbance.rotation_std], 3)
    while True:
        if rng.random() < disturbance.burst_prob:
            drag = np.concatenate([rng.uniform(-1, 1, 3), rng.uniform(-0.2, 0.2, 3)]).astype(np.float32)
            for _ in range(rng.integers(*disturbance.burst_steps, endpoint=True)):
                yield Shift(drag, drags=True)
        yield Shift((std * rng.standard_normal(6)).astype(np.float32), drags=False)


def _displace(env: Env, rng: np.random.Generator, steps: tuple[int, int]) -> None:
    """Move the open end effector away, mostly sideways and up, so that it does not hit the table."""
    action = np.zeros(ACTION_DIM, np.float32)
    arm = action[ARM_ACTION["left"]]
    arm[TRANSLATION] = rng.uniform([-0.6, -0.6, -0.15], [0.6, 0.6, 0.6])
    arm[ROTVEC_RAD] = rng.uniform(-0.08, 0.08, 3)
    arm[GRIPPER] = OPEN
    for _ in range(rng.integers(*steps, endpoint=True)):
        env.advance(action)


def _intended(expert: Expert, observation: Observation) -> np.ndarray:
    """Return the expert's action; it reads the state and is given no images."""
    return expert.act(replace(observation, rgb=observation.rgb[:0], depth=observation.depth[:0]))


def _stacked(moments: list[Moment]) -> Steps:
    return Steps.of(
        [moment.observation for moment in moments],
        np.stack([moment.intended for moment in moments]),
        np.stack([moment.executed for moment in moments]),
    )
