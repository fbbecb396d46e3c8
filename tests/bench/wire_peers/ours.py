"""evalkit's side of the wire's benchmark: `serve`, or `ask URL`.

In: a command. Out: the URL; or `rounds.py`'s lines.
Read next: `rounds.py`; `evalkit/serve/server.py` and `evalkit/serve/client.py`, what is measured.
"""

import asyncio
import sys
from collections.abc import Sequence

import numpy as np
import rounds

from evalkit.contracts.spec import OSC_DELTA_BASE, CameraSpec, EnvSpec, PolicySpec
from evalkit.contracts.types import ACTION_DIM, Observation, PolicyReply, PolicyRequest
from evalkit.serve.client import ServedPolicy
from evalkit.serve.connection import Address
from evalkit.serve.greeting import Greeting
from evalkit.serve.local import PolicyHost
from evalkit.serve.server import Listen, PolicyServer

KINDS = ("static", "static", "wrist")
SPEC = PolicySpec(
    policy_id="no-op",
    action_layouts=(OSC_DELTA_BASE,),
    chunk_len=rounds.CHUNK,
    execute_steps=rounds.CHUNK,
    views=KINDS,
    image_hw_px=(rounds.SIZE_PX, rounds.SIZE_PX),
    arms=("left",),
)
ENV = EnvSpec(
    env_id="bench",
    cameras=tuple(CameraSpec(name=f"camera{i}", kind="wrist" if i == 2 else "static") for i in range(3)),
    image_hw_px=(rounds.SIZE_PX, rounds.SIZE_PX),
    arms=("left",),
    action_layout=OSC_DELTA_BASE,
    control_hz=20.0,
)


class NoOp:
    """Looks at nothing, and holds the robot."""

    spec = SPEC
    actions = np.zeros((rounds.CHUNK, ACTION_DIM), np.float32)

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        pass

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        return [PolicyReply(actions=self.actions) for _ in requests]


def serve() -> None:
    """Serve until the process is ended."""
    with PolicyHost(NoOp()) as host:
        server = PolicyServer(host, Greeting(spec=SPEC), Listen(port=0))
        asyncio.run(server.run(asyncio.Event(), lambda url: print(url, flush=True)))


def ask(url: str) -> None:
    """Ask as the runner does."""
    observation = Observation(
        rgb=rounds.images(),
        depth=np.zeros((rounds.VIEWS, rounds.SIZE_PX, rounds.SIZE_PX), np.float32),
        intrinsics=np.tile(np.eye(3), (rounds.VIEWS, 1, 1)),
        T_base_cam=np.tile(np.eye(4), (rounds.VIEWS, 1, 1)),
        proprio=rounds.state(),
        instruction=rounds.SENTENCE,
    )
    request = PolicyRequest(episode_id="e", chunk_idx=0, step_idx=0, noise_seed=1, observation=observation)
    policy = ServedPolicy(Address(url=url))
    policy.reset("e", ENV)
    rounds.answer(lambda: policy.infer([request])[0].actions)


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else ask(sys.argv[2])
