"""The policy `replay`: executes the actions of recorded episodes again, each in the scene of its own seed.

In: a data set or a run, the planned episode (an oracle). Out: chunks of recorded actions.
Read next: `evalkit/dataset/executed.py`, which finds them; `expert_replay.py`, which follows the expert that RoboTwin's
env publishes; `scripted/policy.py`, experts that act by themselves.

It is the ceiling of a recording: what its actions reach when they are executed again, without any correction.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evalkit.contracts.env import Finding
from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError
from evalkit.contracts.limits import check_range
from evalkit.contracts.spec import (
    EE_POSE_BASE,
    EPISODE,
    JOINT_POSITION,
    OSC_DELTA_BASE,
    EnvSpec,
    PolicySpec,
    still_action,
)
from evalkit.contracts.types import ARM_PROPRIO, PolicyReply, PolicyRequest
from evalkit.dataset.executed import EpisodeId, Executed, ExecutedEpisodes, without_marks
from evalkit.dataset.layout import BrokenEpisode, DataSetError

EXECUTE_STEPS, MAX_EXECUTE_STEPS = 32, 1000

SAME_START_M, SAME_START_QUAT = 5e-3, 0.02
"""Largest differences of the end effector from its recorded start: distance, and of each number of its quaternion."""


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Settings of the replay.

    Attributes:
        data: Folder of a data set (`evalkit record`, `evalkit replay`), or of a run with clips.
        execute_steps: Actions of a chunk, all of which are executed; the episode does not depend on it.
    """

    data: str | None = None
    execute_steps: int = EXECUTE_STEPS

    def __post_init__(self) -> None:
        """Raise BadConfig for a number that makes no chunk."""
        check_range("policy.replay.execute_steps", self.execute_steps, 1, MAX_EXECUTE_STEPS)


class ReplayPolicy:
    """Replays one recording per episode; after its last action, the robot holds still."""

    def __init__(self, spec: PolicySpec, episodes: ExecutedEpisodes) -> None:
        self.spec, self._episodes = spec, episodes
        self._envs: dict[str, EnvSpec] = {}
        self._read: tuple[EpisodeId, Executed] | None = None

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Note arms and layout of the episode."""
        self._envs[episode_id] = env

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one chunk per request: the recorded actions that follow the executed steps.

        Raises:
            EpisodeFault: If there is no recording of an episode in its setting and protocol, the recording has another
                action layout or other arms, or it starts from another state.
        """
        return [PolicyReply(actions=self._actions(request)) for request in requests]

    def _actions(self, request: PolicyRequest) -> np.ndarray:
        env, executed = self._envs[request.episode_id], self._recording(request)
        if request.step_idx == 0:
            _check_actions(executed, env)
            _check_start(executed, request, env)
        count, actions = self.spec.chunk_len, executed.actions_nd
        given = actions[request.step_idx : request.step_idx + count]
        still = still_action(actions[-1], env.action_layout)
        return np.concatenate([given, np.repeat(still[None], count - len(given), axis=0)]).astype(np.float32)

    def _recording(self, request: PolicyRequest) -> Executed:
        episode = request.episode
        assert episode is not None  # the spec requests it
        protocol = without_marks(episode.protocol)
        wanted = EpisodeId(episode.bench, episode.setting, episode.task, episode.seed, protocol)
        if wanted not in self._episodes:
            wanted = wanted._replace(protocol=None)
        if self._read is not None and self._read[0] == wanted:
            return self._read[1]
        if wanted not in self._episodes:
            raise EpisodeFault("policy", self._missing(wanted._replace(protocol=protocol)))
        try:
            self._read = wanted, self._episodes.read(wanted)
        except (BrokenEpisode, DataSetError) as error:
            raise EpisodeFault("policy", str(error)) from error
        return self._read[1]

    def _missing(self, wanted: EpisodeId) -> str:
        return (
            f"{self._episodes.root} holds no recording of {wanted.bench}/{wanted.task}, setting {wanted.setting}, seed "
            f"{wanted.seed}; {self._nearest(wanted)}. Replay a run of the same plan, or record with `evalkit record "
            "--policy replay`."
        )

    def _nearest(self, wanted: EpisodeId) -> str:
        """Return what the folder holds that comes nearest to an episode without a recording."""
        of_seed = [one for one in self._episodes if _bare(one) == _bare(wanted)]
        if protocols := [one.protocol for one in of_seed if one.setting == wanted.setting]:
            return f"its recording is of the protocol {' or '.join(map(str, protocols))}, not of {wanted.protocol}"
        if any(one.setting is None for one in of_seed):
            return "a recording of this seed does not say of which setting it is (`setting` under `about` in its JSON)"
        seeds = sorted({one.seed for one in self._episodes if one[:3] == wanted[:3]})
        return f"it holds {len(seeds)} of seeds {seeds[0]} to {seeds[-1]}" if seeds else "it holds none of this task"


def _bare(identity: EpisodeId) -> EpisodeId:
    return identity._replace(setting=None, protocol=None)


def _check_actions(executed: Executed, env: EnvSpec) -> None:
    """Raise EpisodeFault if the recorded numbers mean something else in this env."""
    pairs = (
        ("another action layout", executed.layout, env.action_layout),
        ("other arms", executed.arms, env.arms),
    )
    for name, recorded, needed in pairs:
        if recorded != needed:
            raise EpisodeFault(
                "policy",
                f"{executed.source} was recorded with {name} than {env.env_id} has: {_shown(recorded)} in "
                f"the recording, {_shown(needed)} in the env. Run the protocol in which it was recorded.",
            )


def _shown(value: str | Sequence[str]) -> str:
    return value if isinstance(value, str) else " and ".join(value)


def _check_start(executed: Executed, request: PolicyRequest, env: EnvSpec) -> None:
    """Raise EpisodeFault if the robot does not stand where the recording starts."""
    for arm in env.arms:
        now, then = (
            np.asarray(state[ARM_PROPRIO[arm]], np.float64)
            for state in (request.observation.proprio, executed.first_proprio)
        )
        apart_m = float(np.linalg.norm(now[:3] - then[:3]))
        if apart_m > SAME_START_M or np.abs(now[3:7] - then[3:7]).max() > SAME_START_QUAT:
            raise EpisodeFault(
                "policy",
                f"{executed.source} starts from another state: its {arm} end effector is {1000 * apart_m:.1f} mm from "
                "the present one, perhaps displaced (record with --no-disturbances) or of another setting.",
            )


class ReplayPlugin:
    """Plugin `replay`."""

    name = "replay"
    summary = "Executes the recorded actions of each episode again (policy.replay.data=DIR): the ceiling of a recording"
    config_type = ReplayConfig

    def spec(self, config: ReplayConfig) -> PolicySpec:
        """Return that it reads the planned episode, which makes it an oracle, and needs no images."""
        return PolicySpec(
            policy_id=self.name,
            action_layouts=(OSC_DELTA_BASE, EE_POSE_BASE, JOINT_POSITION),
            chunk_len=config.execute_steps,
            execute_steps=config.execute_steps,
            needs_images=False,
            privileged_keys=(EPISODE,),
        )

    def examine(self, config: ReplayConfig) -> list[Finding]:
        """Return whether there is a recording."""
        try:
            found, ok = f"{len(_episodes(config))} episodes in {config.data}", True
        except EvalkitError as error:
            found, ok = "none is named" if config.data is None else str(error).rstrip("."), False
        remedy = "give policy.replay.data=DIR, a data set of `evalkit record` or a run with clips"
        return [Finding(what="recorded episodes", ok=ok, found=found, remedy=remedy)]

    def provenance(self, config: ReplayConfig) -> dict[str, str]:
        """Return how many episodes there are, and a hash of their seeds and actions."""
        if config.data is None:
            return {}
        episodes, digest = _episodes(config), hashlib.sha256()
        for identity in episodes:
            digest.update(repr(tuple(identity)[:4]).encode())
            try:
                digest.update(episodes.read(identity).actions_nd.tobytes())
            except (BrokenEpisode, DataSetError):
                digest.update(b"broken")
        tasks = Counter(identity.task for identity in episodes)
        listed = ", ".join(f"{task} {count}" for task, count in tasks.items())
        return {"recording": f"{len(episodes)} episodes ({listed}), sha256 of seeds and actions {digest.hexdigest()}"}

    def make(self, config: ReplayConfig) -> ReplayPolicy:
        """Return the policy.

        Raises:
            BadConfig: If no folder is given, or it holds no episode with bench, task and seed.
        """
        return ReplayPolicy(self.spec(config), _episodes(config))


def _episodes(config: ReplayConfig) -> ExecutedEpisodes:
    if config.data is None:
        raise BadConfig("policy.replay.data is not given; name a data set of `evalkit record`, or a run with clips.")
    try:
        episodes = ExecutedEpisodes(Path(config.data))
    except DataSetError as error:
        raise BadConfig(f"policy.replay.data={config.data} cannot be replayed: {error}") from error
    if not len(episodes):
        raise BadConfig(f"policy.replay.data={config.data} holds no episode that states its bench, task and seed.")
    return episodes
