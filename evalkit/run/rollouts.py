"""Rollouts: the episodes of a run as a LeRobot data set, to train on or to look at with other tools.

In: executed chunks of which every step is rendered. Out: the folder `run.rollouts`, when the last episode is recorded.
Read next: `evalkit/dataset/writer.py`, which writes each episode into the run folder without loss;
`evalkit/dataset/lerobot_export.py`, which makes the LeRobot data set of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.errors import EvalkitError, cannot_write
from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import Episode, Observation
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.layout import scan
from evalkit.dataset.lerobot_export import export
from evalkit.dataset.writer import Recording, Steps, episode_key, recording_of, write_episode, write_metadata
from evalkit.run.episode import ExecutedChunk
from evalkit.store.plan import Plan
from evalkit.store.run_folder import RunFolder

FOLDER = "rollouts"
"""Folder of the episodes in a run folder."""


def recording_for(bench: BoundBench, env_spec: EnvSpec) -> Recording:
    """Return how the episodes of an env are recorded; raises EvalkitError if they cannot be."""
    try:
        return recording_of(env_spec, bench.recordable.dataset_axes())
    except ValueError as error:
        raise EvalkitError(f"run.rollouts cannot be used: {error}") from error


class RolloutRecorder:
    """Collects the steps of an episode and writes them at its end."""

    def __init__(self, folder: RunFolder, bench: BoundBench, episode: Episode, env_spec: EnvSpec) -> None:
        self._folder, self._bench, self._episode = folder, bench, episode
        self._recording = recording_for(bench, env_spec)
        self._observations: list[Observation] = []
        self._actions: list[np.ndarray] = []

    def on_chunk(self, chunk: ExecutedChunk) -> None:
        """Keep the observations before the executed actions."""
        self._observations += chunk.before
        self._actions.append(chunk.actions)

    def on_end(self, outcome: str) -> None:
        """Write the episode under its position in the plan.

        Raises:
            RunFolderError: If the disk is full.
        """
        plan, episode, root = self._folder.plan, self._episode, self._folder.path / FOLDER
        steps = Steps.of(self._observations, np.concatenate(self._actions))
        about = _about(plan, self._bench, episode, success=outcome == "success")
        try:
            write_episode(
                root,
                plan.episodes.index(episode),
                steps,
                self._recording,
                instructions=[self._observations[0].instruction],
                about=about,
            )
        except OSError as error:
            raise cannot_write(root, error) from error

    def abandon(self) -> None:
        """Forget the steps; no file was written yet."""
        self._observations.clear()
        self._actions.clear()


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """What `run.rollouts` holds.

    Attributes:
        num_episodes: Its episodes.
        num_planned: Episodes of the plan.
        gaps: Why the others are missing, and how many for each reason.
    """

    num_episodes: int
    num_planned: int
    gaps: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """Return of how many episodes there are rollouts, and why others are missing."""
        held = f"run.rollouts holds {self.num_episodes} of {self.num_planned} episodes"
        return f"{held}: {', '.join(self.gaps)}." if self.gaps else f"{held}."


def export_rollouts(folder: RunFolder, out: Path) -> Rollouts:
    """Write the LeRobot data set of all recorded episodes, if there is one; the same call again changes nothing.

    Raises:
        DataSetError: If `out` holds something else, or the data set of earlier episodes.
    """
    root = folder.path / FOLDER
    found = scan(root) if root.is_dir() and write_metadata(root) else None
    held = set() if found is None else set(found.lengths)
    if found is not None and held:
        held -= set(export(root, found, out).broken)
    planned = {episode_key(index): episode for index, episode in enumerate(folder.plan.episodes)}
    return Rollouts(
        num_episodes=len(held),
        num_planned=len(planned),
        gaps=_gaps(folder, [episode for key, episode in planned.items() if key not in held]),
    )


def _gaps(folder: RunFolder, missing: Sequence[Episode]) -> tuple[str, ...]:
    outcomes = {record.key: record.outcome for record in folder.records()}
    reasons = {
        None: "without a record in this run folder",
        "error": "that ended as error",
        "skipped": "that were skipped",
    }
    counts = Counter(
        reasons.get(outcomes.get(episode.key), "recorded without run.rollouts, or broken") for episode in missing
    )
    return tuple(f"{count} {reason}" for reason, count in counts.items())


def _about(plan: Plan, bench: BoundBench, episode: Episode, *, success: bool) -> EpisodeAbout:
    return EpisodeAbout(
        bench=bench.address,
        protocol=episode.protocol,
        task=episode.task,
        setting=episode.setting,
        settings=bench.given_settings,
        seed=episode.seed,
        policy=plan.policy.name,
        policy_settings=dict(plan.policy.config),
        policy_provenance=dict(plan.policy.provenance),
        success=success,
    )
