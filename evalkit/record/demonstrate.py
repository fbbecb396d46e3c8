"""One demonstration: an expert that is pushed about, and what it meant to do all the same.

In: an env, a planned episode, how hard to push. Out: what was seen, meant and executed at each step; None if it failed.
Read next: `workers.py`, which writes many of them; `experts.py`.

A learner that only saw calm experts knows no way back. So the robot starts displaced, its actions are noisy, and now
and then it is dragged off for some steps; the action to learn is always what the expert meant to do from there.

Where it is told which learner, the expert takes over from that one, somewhere on its way: what is recorded begins where
the learner's own mistakes have led (DAgger, Ross et al. 2011, with the expert's own path in place of relabelled steps,
because a chunk is a path).

And one that only saw willing experts need not listen, where each task has a scene of its own. So there are refusals: a
robot that was told what cannot be done here, and stands still.

And what a network imagines is of its own doing. So there are rollouts: what any policy does when nobody pushes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import NamedTuple

import numpy as np

from baselines.scripted.motion import OPEN
from evalkit.contracts.env import Env
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import allowed, check_actions
from evalkit.contracts.types import ACTION_DIM, ARM_ACTION, Episode, Observation, PolicyRequest
from evalkit.dataset.writer import Steps

TRANSLATION, ROTATION = slice(0, 3), slice(3, 6)
"""Of one arm's seven numbers; the gripper is never disturbed."""


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """How hard an expert is pushed; an action of 1 is 0.05 m or 0.5 rad.

    Attributes:
        translation_std: Of the noise on a translation, at most; each episode draws its share of it.
        rotation_std: Of the noise on a rotation, likewise.
        burst_prob: Chance, at each step, that the robot is dragged off.
        burst_steps: Fewest and most steps for which it is dragged.
        displaced_frac: Share of episodes that start somewhere else.
        displaced_steps: Fewest and most steps of the way there, which is not recorded.
    """

    translation_std: float = 0.3
    rotation_std: float = 0.06
    burst_prob: float = 0.015
    burst_steps: tuple[int, int] = (3, 6)
    displaced_frac: float = 0.6
    displaced_steps: tuple[int, int] = (4, 16)


CALM = Disturbance(translation_std=0.0, rotation_std=0.0, burst_prob=0.0, displaced_frac=0.0)


class Moment(NamedTuple):
    """One control step: what was seen, what the expert meant, what the robot was told."""

    seen: Observation
    meant: np.ndarray
    executed: np.ndarray


class Learner(NamedTuple):
    """Who acts before the expert takes over, and for how many steps at most."""

    policy: Policy
    most_steps: int


def demonstrate(
    env: Env,
    policy: Policy,
    episode: Episode,
    disturbance: Disturbance,
    *,
    learner: Learner | None = None,
    tail_steps: int = 4,
) -> Steps | None:
    """Return a recorded demonstration, or None if the goal was met before it began, or not in time.

    Args:
        env: The task.
        policy: Who knows how.
        episode: Its seed fixes the scene and every push.
        disturbance: How hard to push.
        learner: Whose steps come before, unrecorded; nobody's where None.
        tail_steps: Steps to record after the goal is met.

    Raises:
        EpisodeFault: If an answer of the learner does not hold the actions that the env needs.
    """
    rng = np.random.default_rng([episode.seed, 0xD15])
    if not _begin(env, episode, rng, disturbance) or (learner and _meets(env, episode, rng, learner)):
        return None
    policy.reset(episode, env.spec)
    pushes = _pushes(rng, disturbance)
    moments: list[Moment] = []
    left = episode.max_steps
    met = False
    while left > 0:
        seen = Observation(**env.observe(render=True))
        meant = _meant(policy, episode, seen, len(moments))
        executed = disturbed(meant, next(pushes))
        moments.append(Moment(seen, meant, executed))
        left -= 1
        if env.advance(executed) and not met:
            met, left = True, tail_steps
    return _stacked(moments) if met else None


def refuse(
    env: Env,
    policy: Policy,
    episode: Episode,
    disturbance: Disturbance,
    *,
    most_steps_before: int = 60,
    num_steps: int = 24,
) -> Steps | None:
    """Return a recording of a robot that means to stand still, or None if the goal was met on the way.

    It stands wherever the task's expert has taken it: a robot that drifts a little must not fall back into the task.

    Args:
        env: The task that nobody asked for.
        policy: Who knows how.
        episode: Its seed fixes the scene, where the robot stands and every push.
        disturbance: How hard to push.
        most_steps_before: Most steps of the expert that come before, unrecorded.
        num_steps: Length.
    """
    rng = np.random.default_rng([episode.seed, 0x5717])
    if not _begin(env, episode, rng, disturbance):
        return None
    policy.reset(episode, env.spec)
    pushes = _pushes(rng, disturbance)
    still = np.zeros(ACTION_DIM, np.float32)
    arm = still[ARM_ACTION["left"]]  # a view
    arm[6] = OPEN
    for step_idx in range(rng.integers(most_steps_before, endpoint=True)):
        meant = _meant(policy, episode, Observation(**env.observe(render=False)), step_idx)
        arm[6] = meant[ARM_ACTION["left"]][6]
        if env.advance(disturbed(meant, next(pushes))):
            return None
    moments: list[Moment] = []
    for push in islice(pushes, num_steps):
        seen = Observation(**env.observe(render=True))
        executed = disturbed(still, push)
        moments.append(Moment(seen, still, executed))
        if env.advance(executed):
            return None
    return _stacked(moments)


class Rollout(NamedTuple):
    """What a policy did, and whether it met the goal."""

    steps: Steps
    success: bool


def rollout(env: Env, policy: Policy, episode: Episode, *, tail_steps: int = 4) -> Rollout | None:
    """Return a recording of what a policy does, or None if the goal was met at the start.

    Args:
        env: The task.
        policy: Who acts; asked anew after as many actions as it wants executed.
        episode: Its seed fixes the scene.
        tail_steps: Steps to record after the goal is met.

    Raises:
        EpisodeFault: If an answer does not hold the actions that the env needs.
    """
    if env.begin(seed=episode.seed, max_steps=episode.max_steps):
        return None
    actions = _actions(env, policy, episode)
    moments: list[Moment] = []
    left = episode.max_steps
    met = False
    while left > 0:
        seen = Observation(**env.observe(render=True))
        action = next(actions)
        moments.append(Moment(seen, action, action))
        left -= 1
        if env.advance(action) and not met:
            met, left = True, min(left, tail_steps)
    return Rollout(_stacked(moments), met)


def _begin(env: Env, episode: Episode, rng: np.random.Generator, disturbance: Disturbance) -> bool:
    """Start an episode, the robot perhaps somewhere else; return False if the goal is met as it is."""
    if env.begin(seed=episode.seed, max_steps=episode.max_steps):
        return False
    if rng.random() < disturbance.displaced_frac:
        _displace(env, rng, disturbance.displaced_steps)
    return True


def _meets(env: Env, episode: Episode, rng: np.random.Generator, learner: Learner) -> bool:
    """Let the learner act for a while; return whether it met the goal."""
    num_steps = rng.integers(learner.most_steps, endpoint=True)
    return any(env.advance(action) for action in islice(_actions(env, learner.policy, episode), num_steps))


def _actions(env: Env, policy: Policy, episode: Episode) -> Iterator[np.ndarray]:
    """Yield what a policy does next; it is asked anew, in the state of then, after as many as it wants executed."""
    policy.reset(episode, env.spec)
    step_idx = 0
    for chunk_idx in count():
        seen = allowed(Observation(**env.observe(render=policy.spec.needs_images)), policy.spec)
        request = PolicyRequest(episode=episode, chunk_idx=chunk_idx, step_idx=step_idx, observation=seen)
        (reply,) = policy.infer([request])
        check_actions(reply.actions, env.spec, policy.spec)
        chunk = reply.actions[: policy.spec.execute_steps]
        yield from chunk
        step_idx += len(chunk)


def disturbed(meant: np.ndarray, push: tuple[np.ndarray, bool]) -> np.ndarray:
    """Return the action that is executed: the expert's and a push, or the push alone where the robot is dragged.

    Example:
        >>> meant = np.float32([0.5] * 7 + [0] * 7)
        >>> disturbed(meant, (np.float32([1.0] * 6), False))[:7].tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5]
        >>> disturbed(meant, (np.float32([-0.25] * 6), True))[5:7].tolist()
        [-0.25, 0.5]
    """
    move, dragged = push
    action = meant.copy()
    arm = action[ARM_ACTION["left"]]  # a view
    arm[:6] = np.clip(move if dragged else arm[:6] + move, -1.0, 1.0)
    return action


def _pushes(rng: np.random.Generator, disturbance: Disturbance) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield one push a step: six numbers, and whether they replace the expert's."""
    share = rng.random()
    std = share * np.repeat([disturbance.translation_std, disturbance.rotation_std], 3)
    while True:
        if rng.random() < disturbance.burst_prob:
            drag = np.concatenate([rng.uniform(-1, 1, 3), rng.uniform(-0.2, 0.2, 3)]).astype(np.float32)
            for _ in range(rng.integers(*disturbance.burst_steps, endpoint=True)):
                yield drag, True
        yield (std * rng.standard_normal(6)).astype(np.float32), False


def _displace(env: Env, rng: np.random.Generator, steps: tuple[int, int]) -> None:
    """Take the open hand somewhere else, mostly aside and up rather than into the table."""
    action = np.zeros(ACTION_DIM, np.float32)
    arm = action[ARM_ACTION["left"]]
    arm[TRANSLATION] = rng.uniform([-0.6, -0.6, -0.15], [0.6, 0.6, 0.6])
    arm[ROTATION] = rng.uniform(-0.08, 0.08, 3)
    arm[6] = OPEN
    for _ in range(rng.integers(*steps, endpoint=True)):
        env.advance(action)


def _meant(policy: Policy, episode: Episode, seen: Observation, step_idx: int) -> np.ndarray:
    bare = replace(seen, rgb=seen.rgb[:0], depth=seen.depth[:0])
    request = PolicyRequest(episode=episode, chunk_idx=step_idx, step_idx=step_idx, observation=bare)
    (reply,) = policy.infer([request])
    return reply.actions[0]


def _stacked(moments: list[Moment]) -> Steps:
    return Steps(
        rgb=np.stack([moment.seen.rgb for moment in moments]),
        depth=np.stack([moment.seen.depth for moment in moments]),
        proprio=np.stack([moment.seen.proprio for moment in moments]),
        action=np.stack([moment.meant for moment in moments]),
        executed=np.stack([moment.executed for moment in moments]),
        intrinsics=np.stack([moment.seen.intrinsics for moment in moments]),
        T_base_cam=np.stack([moment.seen.T_base_cam for moment in moments]),
    )
