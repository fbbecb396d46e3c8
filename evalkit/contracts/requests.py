"""The requests of one episode: what a policy gets to know, and the seed of its noise.

In: a planned episode, the spec of a policy, observations. Out: `PolicyRequest`s and the env spec for `Policy.reset`.
Read next: `evalkit/run/episode.py`, `evalkit/record/demonstrate.py` and `evalkit/score/dataset.py`, which ask.

A policy that does not declare otherwise sees neither the task's name nor the episode's seed: its memory has a random
id, its noise a hash.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import EnvSpec, PolicySpec, allowed, readable_keys, reads_episode
from evalkit.contracts.types import CommittedActions, Episode, Observation, PolicyRequest


class EpisodeRequests:
    """The requests of one episode to one policy.

    Args:
        episode: The planned episode.
        spec: Spec of the policy; decides whether requests hold the episode and which simulator state they hold.
    """

    def __init__(self, episode: Episode, spec: PolicySpec) -> None:
        self.episode_id = uuid.uuid4().hex
        self._episode, self._spec = episode, spec

    def reset(self, policy: Policy, env: EnvSpec) -> None:
        """Start the episode in the policy."""
        policy.reset(self.episode_id, visible_env(env, self._spec))

    def request(
        self,
        observation: Observation,
        *,
        chunk_idx: int,
        step_idx: int,
        num_predicted_frames: int = 0,
        given_actions: np.ndarray | None = None,
        between: Sequence[np.ndarray] = (),
        committed: CommittedActions | None = None,
    ) -> PolicyRequest:
        """Return one request; the arguments are its fields.

        Args:
            between: The images, V,H,W,3 uint8, that `spec.past_offsets` names since the previous request, without those
                of `observation`.
        """
        return PolicyRequest(
            episode_id=self.episode_id,
            chunk_idx=chunk_idx,
            step_idx=step_idx,
            noise_seed=noise_seed(self._episode, chunk_idx=chunk_idx, step_idx=step_idx),
            observation=allowed(observation, self._spec),
            num_predicted_frames=num_predicted_frames,
            given_actions=given_actions,
            past_rgb=self._past_rgb(observation, between, chunk_idx),
            episode=self._episode if reads_episode(self._spec) else None,
            committed=committed,
        )

    def _past_rgb(self, observation: Observation, between: Sequence[np.ndarray], chunk_idx: int) -> np.ndarray | None:
        """Return the images since the previous request, N,V,H,W,3; None if the policy does not ask for them."""
        if self._spec.past_frame_stride is None:
            return None
        if chunk_idx == 0:
            return observation.rgb[None][:0]
        return np.stack([*between, observation.rgb])


def visible_env(env: EnvSpec, policy: PolicySpec) -> EnvSpec:
    """Return the env's spec as the policy may see it; whole if it reads the episode.

    Else without what names the task: the env id ends before the task, and of the names of simulator state, which name
    the task's objects, only those are left that the policy requests.
    """
    if reads_episode(policy):
        return env
    keys = readable_keys(policy, env.privileged_keys)
    return replace(env, env_id=env.env_id.partition("/")[0], privileged_keys=keys)


def noise_seed(episode: Episode, *, chunk_idx: int, step_idx: int) -> int:
    """Return the seed of a request's noise; it depends on the episode and the request alone.

    Where the protocol states a key, it is `seed_of(key, step_idx)`: the released evaluation of X-WAM
    (evaluation/policy_server.py, commit 72cfb86) hashes "rank_rollout_step". Else the identity of the episode and the
    number of the chunk are hashed.

    Args:
        episode: The planned episode.
        chunk_idx: Number of earlier requests in this episode.
        step_idx: Control steps executed so far.
    """
    if episode.noise_key is not None:
        return seed_of(episode.noise_key, step_idx)
    e = episode
    return seed_of(e.bench, e.setting, e.task, e.index, e.seed, f"chunk{chunk_idx}")


def seed_of(*identity: str | int) -> int:
    """Return a 32-bit seed: the MD5 of the parts joined with "_", modulo 2^32.

    Example:
        >>> seed_of(0, 0, 0) == int(hashlib.md5(b"0_0_0").hexdigest(), 16) % 2**32
        True
    """
    text = "_".join(str(part) for part in identity)
    return int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(), 16) % 2**32
