"""Rollouts: the episodes of a run as a LeRobot data set, to train on or to look at with other tools.

In: executed chunks of which every step is rendered. Out: the folder `run.rollouts`, when the last episode is recorded.
Read next: `evalkit/dataset/writer.py`, which writes each episode into the run folder without loss;
`evalkit/dataset/lerobot_export.py`, which makes the LeRobot data set of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.errors import EvalkitError, cannot_write
from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import Episode, Observation
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.layout import scan
from evalkit.dataset.lerobot_export import Exported, export
from evalkit.dataset.writer import Recording, Steps, recording_of, write_episode, write_metadata
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


def export_rollouts(folder: RunFolder, out: Path) -> Exported:
    """Write the LeRobot data set of all recorded episodes; the same call again changes nothing.

    Raises:
        DataSetError: If no episode is usable, or `out` holds something else, or the data set of earlier episodes.
    """
    root = folder.path / FOLDER
    write_metadata(root)
    return export(root, scan(root), out)


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
