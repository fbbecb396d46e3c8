"""Requests of noise: what a policy is asked where no simulator runs.

In: a policy's spec. Out: the spec of an env that fits it, requests, replies.
Read next: `policies.py`, which asks; `evalkit/contracts/requests.py`, which makes the requests of a run.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from evalkit.contracts.noise import noise_observation
from evalkit.contracts.policy import Policy
from evalkit.contracts.requests import EpisodeRequests, visible_env
from evalkit.contracts.spec import JOINT_POSITION, ROBOT_STATE, CameraSpec, EnvSpec, PolicySpec, past_offsets
from evalkit.contracts.types import Episode, PolicyReply, PolicyRequest

_NO_OFFSET = tuple(map(tuple, np.eye(4).tolist()))


def env_for(spec: PolicySpec) -> EnvSpec:
    """Return the spec of an env that gives exactly what a policy needs."""
    joints = (JOINT_POSITION,) if spec.action_layouts[0] == JOINT_POSITION else ()
    kinds = spec.views or ("static", "static", "wrist")
    cameras = tuple(
        CameraSpec(name=f"{kind}{i}", kind="wrist", arm="left", T_ee_cam=_NO_OFFSET)
        if kind == "wrist"
        else CameraSpec(name=f"{kind}{i}", kind="static")
        for i, kind in enumerate(kinds)
    )
    return EnvSpec(
        env_id=spec.env_ids[0] if spec.env_ids else "robosuite/Lift",
        cameras=cameras,
        image_hw_px=spec.image_hw_px or (16, 24),
        arms=spec.arms or ("left",),
        action_layout=spec.action_layouts[0],
        control_hz=spec.control_hz or 20.0,
        privileged_keys=(*joints, *(key for key in spec.privileged_keys if key in ROBOT_STATE)),
    )


def noise_request(spec: PolicySpec, index: int, chunk_idx: int, *, env: EnvSpec | None = None) -> PolicyRequest:
    """Return a request whose images are noise; the same arguments give the same request.

    Args:
        spec: Spec of the policy.
        index: Number of the episode.
        chunk_idx: Number of earlier requests.
        env: The env that observes; one that fits the policy if None.
    """
    env = env or env_for(spec)
    bench, _, task = env.env_id.partition("/")
    instruction = "lift the cube"
    episode = Episode(
        bench=bench,
        setting="default",
        protocol="test",
        task=task,
        index=index,
        seed=index,
        instruction=instruction,
        max_steps=100,
    )
    rng = np.random.default_rng([index, chunk_idx])
    observation = noise_observation(env, rng, instruction)
    past = past_offsets(spec, spec.execute_steps)[:-1] if chunk_idx else ()
    request = EpisodeRequests(episode, spec).request(
        observation,
        between=[rng.integers(0, 256, observation.rgb.shape, dtype=np.uint8) for _ in past],
        chunk_idx=chunk_idx,
        step_idx=chunk_idx * spec.execute_steps,
        num_predicted_frames=spec.num_future_frames if spec.predicts else 0,
    )
    return replace(request, episode_id=f"episode {index}")


def ask(policy: Policy, *requests: PolicyRequest, env: EnvSpec | None = None) -> list[PolicyReply]:
    """Return the replies to one batch; episodes that begin are reset first, in `env` or in one that fits."""
    for request in requests:
        if request.chunk_idx == 0:
            policy.reset(request.episode_id, visible_env(env or env_for(policy.spec), policy.spec))
    return policy.infer(requests)
