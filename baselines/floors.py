"""Two policies without knowledge, the floor of every success rate: one holds still, one moves at random.

In: requests, of which only the noise seed matters, and the arms of the env. Out: chunks of actions.
Read next: `scripted/policy.py`, the ceiling.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.contracts.spec import OSC_DELTA_BASE, EnvSpec, PolicySpec
from evalkit.contracts.types import ACTION_DIM, ARM_ACTION, GRIPPER, PolicyReply, PolicyRequest

CHUNK_LEN = 16

NOISE_RULE = "numpy default_rng([policy.random.seed, noise seed of the request]), uniform"
"""How `random` draws; part of plans, so that runs with actions drawn otherwise are other runs."""


@dataclass(frozen=True, kw_only=True)
class HoldConfig:
    """Settings of the policy that holds still: none."""


@dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """Settings of the random policy.

    Attributes:
        seed: Seed of the actions.
    """

    seed: int = 0


class _FloorPolicy(ABC):
    """The part that both floors share: they need the arms of an episode and nothing else."""

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec
        self._columns: dict[str, list[slice]] = {}

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Note which arms the episode has."""
        self._columns[episode_id] = [ARM_ACTION[arm] for arm in env.arms]

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one chunk per request; arms that do not exist stay zero."""
        return [PolicyReply(actions=self._actions(request)) for request in requests]

    def _actions(self, request: PolicyRequest) -> np.ndarray:
        actions = np.zeros((CHUNK_LEN, ACTION_DIM), np.float32)
        for columns in self._columns[request.episode_id]:
            actions[:, columns] = self._arm_actions(request, columns)
        return actions

    @abstractmethod
    def _arm_actions(self, request: PolicyRequest, columns: slice) -> np.ndarray:
        """Return one arm's actions, CHUNK_LEN,7."""


class HoldPolicy(_FloorPolicy):
    """Holds still with open grippers."""

    def _arm_actions(self, request: PolicyRequest, columns: slice) -> np.ndarray:
        return np.eye(7, dtype=np.float32)[GRIPPER]


class RandomPolicy(_FloorPolicy):
    """Draws every number uniformly from [-1, 1]; the draws depend on the request's noise seed and the setting."""

    def __init__(self, spec: PolicySpec, seed: int) -> None:
        super().__init__(spec)
        self._seed = seed

    def _arm_actions(self, request: PolicyRequest, columns: slice) -> np.ndarray:
        rng = np.random.default_rng([self._seed, request.noise_seed])
        drawn = rng.uniform(-1.0, 1.0, (CHUNK_LEN, ACTION_DIM))
        return drawn.astype(np.float32)[:, columns]


class HoldPlugin:
    """Plugin `hold`."""

    name = "hold"
    summary = "Holds still with open grippers: the floor of every success rate"
    config_type = HoldConfig

    def spec(self, config: HoldConfig) -> PolicySpec:
        """Return that it fits any env with this action layout."""
        return _spec(self.name)

    def provenance(self, config: HoldConfig) -> dict[str, str]:
        """Return nothing: it has no weights and no settings."""
        return {}

    def make(self, config: HoldConfig) -> HoldPolicy:
        """Return the policy."""
        return HoldPolicy(self.spec(config))


class RandomPlugin:
    """Plugin `random`."""

    name = "random"
    summary = "Draws uniform random actions, the same ones each time for the same episode"
    config_type = RandomConfig

    def spec(self, config: RandomConfig) -> PolicySpec:
        """Return that it fits any env with this action layout."""
        return _spec(self.name)

    def provenance(self, config: RandomConfig) -> dict[str, str]:
        """Return the seed and how the actions follow from it, so that runs drawn in another way do not continue."""
        return {"seed": str(config.seed), "noise": NOISE_RULE}

    def make(self, config: RandomConfig) -> RandomPolicy:
        """Return the policy."""
        return RandomPolicy(self.spec(config), config.seed)


def _spec(name: str) -> PolicySpec:
    return PolicySpec(
        policy_id=name,
        action_layouts=(OSC_DELTA_BASE,),
        chunk_len=CHUNK_LEN,
        execute_steps=CHUNK_LEN,
        needs_images=False,
    )
