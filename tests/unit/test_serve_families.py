"""Every family of models in a host: three episodes at once give, to the bit, what each gives alone.

In: random nano weights, passes of 4 rows. Out: checks of actions and predictions.
Read next: `test_serve_xwam.py` for the shipped weights; `evalkit/serve/local.py`.
"""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from evalkit.config import bind_policy
from evalkit.contracts.policy import Policy
from evalkit.contracts.types import Prediction
from evalkit.serve.hosted import HostedPolicy
from evalkit.serve.local import PolicyHost
from evalkit.testing.requests import env_for, noise_request

NUM_EPISODES, NUM_CHUNKS, NUM_FRAMES, WAIT_S = 3, 2, 2, 120.0
Chunk = tuple[np.ndarray, Prediction | None]


def episode(policy: Policy, index: int) -> list[Chunk]:
    """Return the actions and predictions of an episode's first chunks."""
    policy.reset(f"episode {index}", env_for(policy.spec))
    chunks = []
    for chunk_idx in range(NUM_CHUNKS):
        request = noise_request(policy.spec, index, chunk_idx)
        num_frames = min(NUM_FRAMES, request.num_predicted_frames)
        (reply,) = policy.infer([replace(request, num_predicted_frames=num_frames)])
        chunks.append((reply.actions, reply.prediction() if reply.prediction else None))
    return chunks


def assert_equal(one: Chunk, other: Chunk) -> None:
    assert np.array_equal(one[0], other[0])
    assert (one[1] is None) == (other[1] is None)
    for name in ("rgb", "depth", "proprio") if one[1] is not None else ():
        a, b = getattr(one[1], name), getattr(other[1], name)
        assert (a is None and b is None) or np.array_equal(a, b), name


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("xwam", ["num_video_steps=4", "num_action_steps=3", "step_cache=dynamic"]),
        ("xwam", ["num_video_steps=4", "num_action_steps=3", "freeze_video_after=2"]),
        ("xwam", ["guidance=2.0"]),
        ("xwam", ["num_video_steps=2", "num_action_steps=2"]),
        ("uwm", []),
        ("dreamzero", []),
        ("joint_attention", []),
        ("video_in_training", []),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_episodes_at_once_are_those_alone(name: str, settings: list[str]) -> None:
    overrides = [f"policy.{name}.{each}" for each in ("checkpoint=random-nano", "width=4", *settings)]
    bound = bind_policy(name, overrides)
    alone = [episode(bound.load(), index) for index in range(NUM_EPISODES)]
    shared: dict[int, list[Chunk]] = {}
    with PolicyHost(bound.load()) as host:
        hosted = HostedPolicy(host)
        threads = [
            threading.Thread(target=lambda index=index: shared.update({index: episode(hosted, index)}))
            for index in range(NUM_EPISODES)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        load = host.load()
    assert sorted(shared) == list(range(NUM_EPISODES))
    for index, chunks in enumerate(alone):
        for one, other in zip(chunks, shared[index], strict=True):
            assert_equal(one, other)
    assert load.num_rows >= load.num_passes  # how many share a pass depends on time
