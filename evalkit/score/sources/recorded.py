"""Recorded episodes of any origin: chunks to predict again, with the executed actions.

In: a run folder with clips, or a data set in the layout of X-WAM. Out: `Recorded` episodes, read a chunk at a time.
Read next: `evalkit/score/dataset.py`, which runs a policy on them; `data_set.py`, the data sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from evalkit.contracts.errors import BadConfig, SpecMismatch
from evalkit.contracts.spec import EnvSpec, PolicySpec, past_offsets, still_action
from evalkit.contracts.types import Episode
from evalkit.dataset.layout import BrokenEpisode, read_track
from evalkit.score.sources.data_set import DataSet, RecordedChunk, task_and_index
from evalkit.score.sources.simulator import Simulator
from evalkit.store.clips import ClipChunk, ClipReader
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import RunFolder, open_run


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """One recorded episode, open for reading.

    Attributes:
        episode: The planned episode.
        env: Spec of the env that it was recorded in.
        instruction: The instruction that the policy gets.
        chunks: Its chunks in order.
        actions_nd: All executed actions, N,14; None if they were not recorded.
    """

    episode: Episode
    env: EnvSpec
    instruction: str
    chunks: Iterator[RecordedChunk]
    actions_nd: np.ndarray | None


class Source(Protocol):
    """Where recorded episodes come from."""

    @property
    def bench(self) -> str:
        """Return the name of the bench of the recording."""
        ...

    @property
    def episodes(self) -> list[Entry]:
        """Return all recorded episodes."""
        ...

    def open(self, entry: Entry, policy: PolicySpec) -> AbstractContextManager[Recorded]:
        """Open one episode, cut as the policy's chunks ask for.

        Raises:
            RunFolderError: If the clip of a run is broken.
            BrokenEpisode: If the episode of a data set is broken.
            SpecMismatch: While its chunks are read, if the policy needs frames that were not recorded.
        """
        ...

    def outlines(self) -> list[Outline]:
        """Return task and instruction of every episode; broken ones of a data set are left out."""
        ...

    def motion(self, entry: Entry, policy: PolicySpec) -> Motion | None:
        """Return the actions of one episode, without its images; None if it holds none.

        Raises:
            RunFolderError: If the clip of a run is broken.
            BrokenEpisode: If the episode of a data set is broken.
        """
        ...

    def simulator(self, entry: Entry) -> Simulator:
        """Return the bench, with the settings of the recording, in which an episode was recorded.

        Raises:
            EvalkitError: If it is not installed, or no longer has these settings.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A recorded episode by name.

    Attributes:
        task: Its task.
        index: Its number within the task.
        outcome: How it ended; `unknown` if that was not recorded.
        path: The file that it starts from.
        key: Its key in a data set; empty in a run.
        record: Of a run, what it says of the episode.
    """

    task: str
    index: int
    outcome: str
    path: Path
    key: str = ""
    record: EpisodeRecord | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What an episode shows: its task and its instruction."""

    entry: Entry
    task: str
    instruction: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """The actions of one episode, without its images.

    Attributes:
        actions_nd: All executed actions, N,14.
        starts: State at the first step of each chunk, 16 numbers, by the number of that step.
    """

    actions_nd: np.ndarray
    starts: Mapping[int, np.ndarray]


def open_source(folder: Path) -> Source:
    """Return the episodes of a folder: a run's, or a data set's.

    Raises:
        BadConfig: If it is neither.
        RunFolderError: If it is a run that cannot be read.
    """
    if (folder / "plan.json").exists():
        return RunSource(folder)
    if (folder / "metadata.json").exists():
        return DataSetSource(folder)
    raise BadConfig(f"{folder} is neither a run (plan.json) nor a data set in the layout of X-WAM (metadata.json).")


class RunSource:
    """The clips of a run."""

    def __init__(self, run_dir: Path) -> None:
        self.run: RunFolder = open_run(run_dir)
        self.bench = self.run.plan.bench.name

    @property
    def episodes(self) -> list[Entry]:
        """Return the episodes that have a clip."""
        return [
            Entry(
                task=record.task,
                index=record.index,
                outcome=record.outcome,
                path=self.run.path / record.clip,
                record=record,
            )
            for record in self.run.records()
            if record.clip is not None
        ]

    @contextmanager
    def open(self, entry: Entry, policy: PolicySpec) -> Iterator[Recorded]:
        """Open one clip; its chunks are the executed ones."""
        with ClipReader(entry.path) as clip:
            yield Recorded(
                episode=clip.header.episode,
                env=clip.header.env_spec,
                instruction=(entry.record.instruction if entry.record else None) or "",
                chunks=_executed_chunks(clip, policy),
                actions_nd=clip.read_actions(),
            )

    def outlines(self) -> list[Outline]:
        """Return task and instruction of the episodes, as their records state them."""
        return [
            Outline(entry=entry, task=entry.task, instruction=(entry.record.instruction if entry.record else "") or "")
            for entry in self.episodes
        ]

    def motion(self, entry: Entry, policy: PolicySpec) -> Motion | None:
        """Return the executed actions of a clip; the states are those at the start of its chunks."""
        with ClipReader(entry.path) as clip:
            actions_nd = clip.read_actions()
            return None if actions_nd is None else Motion(actions_nd=actions_nd, starts=clip.read_starts())

    def simulator(self, entry: Entry) -> Simulator:
        """Return the planned bench."""
        planned = self.run.plan.bench
        return Simulator.of(planned.name, planned.config)


class DataSetSource:
    """A data set in the layout of X-WAM."""

    def __init__(self, root: Path) -> None:
        self.data = DataSet(root)
        self.bench = self.data.bench

    @property
    def episodes(self) -> list[Entry]:
        """Return the listed episodes."""
        named = [(key, *task_and_index(key)) for key in self.data.keys]
        return [
            Entry(task=task, index=index, outcome="unknown", path=self.data.path(key), key=key)
            for key, task, index in named
        ]

    @contextmanager
    def open(self, entry: Entry, policy: PolicySpec) -> Iterator[Recorded]:
        """Open one episode, cut into chunks one after another, each as long as the policy's."""
        read = self.data.read(entry.key, index=entry.index)
        yield Recorded(
            episode=read.episode,
            env=read.env,
            instruction=read.episode.instruction or "",
            chunks=read.chunks(policy),
            actions_nd=read.track.executed,
        )

    def outlines(self) -> list[Outline]:
        """Return task and first instruction of the episodes that can be read."""
        found = []
        for entry in self.episodes:
            try:
                track = read_track(self.data.root, entry.key)
            except BrokenEpisode:
                continue
            if track.about.task is not None:
                found.append(Outline(entry=entry, task=track.about.task, instruction=track.instructions[0]))
        return found

    def motion(self, entry: Entry, policy: PolicySpec) -> Motion | None:
        """Return the executed actions of an episode; the states are those at the start of the policy's chunks."""
        read = self.data.read_without_videos(entry.key, index=entry.index)
        if read.track.executed is None:
            return None
        starts = range(0, read.track.num_frames - 1, policy.chunk_len)
        return Motion(actions_nd=read.track.executed, starts={step: read.proprio[step] for step in starts})

    def simulator(self, entry: Entry) -> Simulator:
        """Return the bench that the episode names, with the settings that it states."""
        about = read_track(self.data.root, entry.key).about
        return Simulator.of(about.bench or self.bench, about.settings or {})


def _executed_chunks(clip: ClipReader, policy: PolicySpec) -> Iterator[RecordedChunk]:
    """Yield the chunks of a clip; the frames between two of them are those that the first one shows."""
    previous: ClipChunk | None = None
    for chunk in clip:
        yield RecordedChunk(chunk, {}, [] if previous is None else _between(previous, policy, clip.path))
        previous = chunk


def _between(chunk: ClipChunk, policy: PolicySpec, path: Path) -> Sequence[np.ndarray]:
    """Return the images of a chunk that the policy's next request needs; the next chunk begins with the last one.

    Raises:
        SpecMismatch: If the clip does not hold them.
    """
    stride, needed = chunk.frame_stride, policy.past_frame_stride
    if needed is None:
        return []
    if needed % stride or chunk.num_executed % needed:
        raise SpecMismatch(
            f"{path} has a frame every {stride} steps and chunks of {chunk.num_executed} steps; policy "
            f"'{policy.policy_id}' needs the frames of every {needed} steps up to its next request. Score it on a data "
            "set, or on a run of a policy with these frames and chunks."
        )
    steps = past_offsets(policy, chunk.num_executed)[:-1]
    return [chunk.true.rgb_fvhwc_u8[offset // stride - 1] for offset in steps]


def actions_from(actions_nd: np.ndarray, step_idx: int, count: int, layout: str) -> np.ndarray:
    """Return `count` actions from a step on; after the last recorded action, the robot holds still.

    Example:
        >>> recorded = np.ones((3, 14), np.float32)
        >>> actions_from(recorded, 2, 2, "osc_delta_base")[:, [0, 6]].tolist()
        [[1.0, 1.0], [0.0, 1.0]]
    """
    given = actions_nd[step_idx : step_idx + count]
    still = still_action(actions_nd[-1], layout)
    return np.concatenate([given, np.repeat(still[None], count - len(given), axis=0)]).astype(np.float32)
