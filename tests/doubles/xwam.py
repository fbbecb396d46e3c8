"""X-WAM with random weights as a policy, and requests for it.

In: a seed. Out: the plugin, settings that make it quick, and observations of noise.
Read next: `tests/unit/test_xwam_policy.py`.
"""

from dataclasses import replace

import numpy as np

from evalkit.contracts import spec as contract
from evalkit.contracts.requests import EpisodeRequests
from evalkit.contracts.types import Episode, Observation, PolicyRequest
from xwam.config import NANO
from xwam.policy import XwamPlugin, XwamPolicyConfig

PLUGIN = XwamPlugin()


RANDOM = XwamPolicyConfig(checkpoint="random-nano")


QUICK = replace(RANDOM, num_video_steps=3, num_action_steps=2)


ENV = contract.EnvSpec(
    env_id="robosuite/Lift",
    cameras=tuple(
        contract.CameraSpec(name=f"c{index}", kind="wrist" if kind == "wrist" else "static")
        for index, kind in enumerate(NANO.views)
    ),
    image_hw_px=NANO.image_hw_px,
    arms=("left",),
    action_layout=contract.OSC_DELTA_BASE,
    control_hz=20.0,
)


def request_of(
    seed: int = 0, chunk_idx: int = 0, *, num_predicted_frames: int = 0, instruction: str = "Lift the cube."
) -> PolicyRequest:
    rng = np.random.default_rng(seed)
    views, (height, width) = len(NANO.views), NANO.image_hw_px
    proprio = np.zeros(16, np.float32)
    proprio[:8] = [0.5, 0.1, 0.2, 0.0, 1.0, 0.0, 0.0, 1.0]
    observation = Observation(
        rgb=rng.integers(0, 256, (views, height, width, 3), dtype=np.uint8),
        depth=np.broadcast_to(np.linspace(0.5, 2.0, width, dtype=np.float32), (views, height, width)).copy(),
        intrinsics=np.tile(np.eye(3), (views, 1, 1)),
        T_base_cam=np.tile(np.eye(4), (views, 1, 1)),
        proprio=proprio,
        instruction=instruction,
    )
    episode = Episode(
        bench="robosuite",
        setting="default",
        protocol="p",
        task="Lift",
        index=seed,
        seed=100 + seed,
        instruction=instruction,
        max_steps=100,
    )
    requests = EpisodeRequests(episode, PLUGIN.spec(RANDOM))
    return requests.request(observation, chunk_idx=chunk_idx, step_idx=0, num_predicted_frames=num_predicted_frames)
