"""An env in the bench's own interpreter, as if it were in this process.

In: how to launch it. Out: what `evalkit.contracts.env.Env` promises.
Read next: `../env_process.py`, the process; `workers.py`, which records demonstrations with it.

The process renders at every step, which is what demonstrations are made of.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from baselines.env_process import ANSWER_S, START_S, EnvProcess, EnvProcessError, Refused
from evalkit.contracts.env import WorkerLaunch
from evalkit.contracts.errors import EvalkitError

VIEWS = ("rgb", "depth", "intrinsics", "T_base_cam")
"""Fields of an observation with one entry a view."""


class RemoteEnv:
    """One task; satisfies `evalkit.contracts.env.Env`.

    Args:
        launch: How to start its process.

    Raises:
        EvalkitError: If the env cannot be built.
    """

    def __init__(self, launch: WorkerLaunch) -> None:
        self._process = EnvProcess(launch)
        try:
            self.spec = self._process.make()
        except EnvProcessError as error:
            self._process.close()
            raise EvalkitError(f"The env cannot be built by {launch.python}: {error}.") from error
        self.about = self._process.about
        self._seen: dict[str, Any] = {}

    def begin(self, *, seed: int, max_steps: int) -> bool:
        """Start the episode of this seed; return whether it is already solved."""
        question = {"op": "begin", "seed": seed, "max_steps": max_steps, "render": True}
        answer = self._process.ask(question, START_S)
        self._seen = answer["observation"]
        return bool(answer["solved"])

    def advance(self, action: np.ndarray) -> bool:
        """Execute one action for one control step; return whether the goal is met.

        Raises:
            FloatingPointError: If the simulation blew up.
        """
        question = {"op": "advance", "actions": action[None], "render_at": [1]}
        try:
            answer = self._process.ask({**question, "render_last": True, "render_success": True}, ANSWER_S)
        except Refused as error:
            kind, _, reason = str(error).partition(": ")
            if kind == FloatingPointError.__name__:
                raise FloatingPointError(reason) from error
            raise
        ((_, self._seen),) = answer["frames"]
        return bool(answer["success"])

    def observe(self, *, render: bool) -> dict[str, Any]:
        """Return the fields of an `Observation`; with `render=False` V is 0."""
        return self._seen if render else {**self._seen, **{name: self._seen[name][:0] for name in VIEWS}}

    def close(self) -> None:
        """End the process; calling it twice is fine."""
        self._process.close()
