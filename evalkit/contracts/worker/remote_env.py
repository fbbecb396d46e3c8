"""An env in a process of its own, used as if it were in this one.

In: how to launch it. Out: what `evalkit.contracts.env.Env` promises.
Read next: `client.py`, which owns the process; `evalkit/record/workers.py`, which records demonstrations with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from evalkit.contracts.env import WorkerLaunch
from evalkit.contracts.errors import EnvRaised, EpisodeFault, EvalkitError
from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.worker import messages
from evalkit.contracts.worker.client import Answer, EnvWorker


class RemoteEnv:
    """One task; satisfies `evalkit.contracts.env.Env`.

    Args:
        launch: How to start its process.
        spec: What the env must give.

    Raises:
        EvalkitError: If the env cannot be built.
    """

    def __init__(self, launch: WorkerLaunch, spec: EnvSpec) -> None:
        self.spec = spec
        self._worker = EnvWorker(launch, spec)
        try:
            self._worker.build()
        except EpisodeFault as fault:
            raise EvalkitError(fault.reason) from fault
        self._state: Mapping[str, Any] = {}

    @property
    def about(self) -> Mapping[str, str]:
        """Return what only the running env knows: its interpreter, its renderer."""
        return self._worker.about

    def begin(self, *, seed: int, max_steps: int) -> bool:
        """Start the episode of this seed; return whether it is already solved."""
        begun = self._ask(messages.Begin(seed=seed, max_steps=max_steps, render=False), messages.Begun)
        self._state = begun.observation
        return begun.solved

    def advance(self, action: np.ndarray) -> bool:
        """Execute one action for one control step; return whether the goal is met."""
        advanced = self._ask(messages.Advance(actions=action[None]), messages.Advanced)
        assert advanced.last is not None  # nothing is rendered
        self._state = advanced.last
        return advanced.success

    def observe(self, *, render: bool) -> dict[str, Any]:
        """Return the fields of an `Observation`; with `render=False` V is 0."""
        if not render:
            return dict(self._state)
        return dict(self._ask(messages.Observe(render=True), messages.Observed).observation)

    def close(self) -> None:
        """End the process; calling it twice is fine."""
        self._worker.close()

    def _ask(self, question: messages.Message, answer_type: type[Answer]) -> Answer:
        """Return the answer.

        Raises:
            FloatingPointError: If the simulation became unstable.
            EpisodeFault: If the process fails, or the env raised another error.
        """
        try:
            return self._worker.ask(question, answer_type)
        except EnvRaised as error:
            if error.kind == FloatingPointError.__name__:
                raise FloatingPointError(error.text) from error
            raise
