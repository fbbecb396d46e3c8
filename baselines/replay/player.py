"""A process in which an env plays states back, in the bench's own interpreter.

In: how to launch it, states. Out: observations, rendered.
Read next: `../env_process.py`, the process; `render.py`, which asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from baselines.env_process import ANSWER_S, START_S, EnvProcess
from evalkit.contracts.spec import EnvSpec

STATES_PER_MESSAGE = 16


class Player(EnvProcess):
    """One demonstration's process; use it in a `with`."""

    def start(self) -> EnvSpec:
        """Compile the model; return what the env gives.

        Raises:
            EnvProcessError: If it cannot.
        """
        spec = self.make()
        self.ask({"op": "begin", "seed": 0, "max_steps": 0, "render": False}, START_S)
        return spec

    def play(self, states: np.ndarray) -> Iterator[dict[str, Any]]:
        """Yield an observation for each state.

        Raises:
            Refused: If a state does not fit the model.
            EnvProcessError: If the process fails.
        """
        for start in range(0, len(states), STATES_PER_MESSAGE):
            some = states[start : start + STATES_PER_MESSAGE]
            question = {"op": "advance", "actions": some, "render_at": list(range(1, len(some) + 1))}
            answer = self.ask({**question, "render_last": True, "render_success": False}, ANSWER_S)
            yield from (observation for _, observation in answer["frames"])
