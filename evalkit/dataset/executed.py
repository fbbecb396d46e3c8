"""The actions that recorded episodes executed: of a data set, or of the clips of a run.

In: a folder. Out: which episodes it holds, and the actions of each; images are not read.
Read next: `layout.py`, the data sets; `baselines/replay.py`, which executes the actions again.

    data/<key>.json                 of a data set: `about`, `executed`
    clips/<task>/<index>.h5         of a run (`evalkit/store/clips.py`): attributes `episode` and `outcome`; one group a
                                    chunk, `chunks/0000`, with `actions_nd` and `start/proprio_fd`
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evalkit.contracts import plugins
from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.recording import DataSetBench
from evalkit.contracts.spec import EE_POSE_BASE, OSC_DELTA_BASE
from evalkit.dataset.axes import SAME_AXES
from evalkit.dataset.hdf5_file import UnreadableFile, opened_hdf5
from evalkit.dataset.layout import BrokenEpisode, DataSetError, read_metadata, read_track
from evalkit.dataset.writer import read_about


class EpisodeId(NamedTuple):
    """What decides the first state of an episode.

    Attributes:
        bench: The bench.
        setting: Setting of the bench. None if the recording does not state it.
        task: Task of the bench.
        seed: Seed of the env.
        protocol: Protocol, without its marks (`+placeholder-art`). None if the recording does not state it.
    """

    bench: str
    setting: str | None
    task: str
    seed: int
    protocol: str | None = None


def without_marks(protocol: str | None) -> str | None:
    """Return a protocol's name without its marks, which change neither seeds nor actions.

    Example:
        >>> without_marks("robotwin-50/xwam+cpu-planner+raster")
        'robotwin-50/xwam'
    """
    return None if protocol is None else protocol.partition("+")[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Executed:
    """The actions of one episode.

    Attributes:
        source: File that holds them.
        layout: Action layout in which they were executed.
        arms: Arms that exist.
        first_proprio: State before the first action, 16 float32, in the frames of the bench.
        actions_nd: N,14 float32, in this layout.
    """

    source: Path
    layout: str
    arms: tuple[str, ...]
    first_proprio: np.ndarray
    actions_nd: np.ndarray


class ExecutedEpisodes:
    """The episodes of a data set or of a run that state their seed; of several with one seed, a success comes first.

    Args:
        root: The folder.

    Raises:
        DataSetError: If it is neither.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._is_run = (root / "clips").is_dir()
        found = sorted(self._clips() if self._is_run else self._episodes(), key=lambda one: not one[2])
        self._paths: dict[EpisodeId, Path] = {}
        for identity, path, _ in found:
            self._paths.setdefault(identity, path)

    def __len__(self) -> int:
        return len(self._paths)

    def __contains__(self, identity: object) -> bool:
        return identity in self._paths

    def __iter__(self) -> Iterator[EpisodeId]:
        return iter(sorted(self._paths, key=lambda one: tuple("" if part is None else part for part in one)))

    def read(self, identity: EpisodeId) -> Executed:
        """Return the actions of an episode.

        Raises:
            BrokenEpisode: If it is broken, or holds no executed actions.
        """
        path = self._paths[identity]
        executed = _read_clip(path) if self._is_run else _read_episode(self.root, path, identity.bench)
        if not np.isfinite(executed.actions_nd).all() or not len(executed.actions_nd):
            raise BrokenEpisode(f"{path} must hold finite actions, it has {len(executed.actions_nd)}.")
        return executed

    def _clips(self) -> Iterator[tuple[EpisodeId, Path, bool]]:
        for path in sorted(self.root.glob("clips/**/*.h5")):
            try:
                with opened_hdf5(path) as file:
                    episode, outcome = json.loads(file.attrs["episode"]), file.attrs["outcome"]
                stated = {name: episode.get(name) for name in EpisodeId._fields}
                yield EpisodeId(**{**stated, "protocol": without_marks(stated["protocol"])}), path, outcome == "success"
            except (UnreadableFile, KeyError, ValueError):
                continue

    def _episodes(self) -> Iterator[tuple[EpisodeId, Path, bool]]:
        for key in read_metadata(self.root):
            path = self.root / "data" / f"{key}.json"
            about = read_about(path)
            if about is not None and about.bench is not None and about.task is not None and about.seed is not None:
                protocol = without_marks(about.protocol)
                identity = EpisodeId(about.bench, about.setting, about.task, about.seed, protocol)
                yield identity, path, about.success is not False


def _read_clip(path: Path) -> Executed:
    try:
        with opened_hdf5(path) as file:
            chunks = [file["chunks"][name] for name in sorted(file["chunks"])]
            actions = np.concatenate([chunk["actions_nd"][()] for chunk in chunks])
            proprio = chunks[0]["start"]["proprio_fd"][0]
            env = json.loads(file.attrs["env_spec"])
            layout, arms = env["action_layout"], tuple(env["arms"])
    except (UnreadableFile, KeyError, ValueError) as error:
        raise BrokenEpisode(f"{path} holds no executed actions: {error}.") from error
    return Executed(
        source=path, layout=layout, arms=arms, first_proprio=proprio, actions_nd=np.asarray(actions, np.float32)
    )


def _read_episode(root: Path, path: Path, bench: str) -> Executed:
    track = read_track(root, str(path.relative_to(root / "data").with_suffix("")))
    if track.executed is None:
        raise BrokenEpisode(f"{path} holds goal poses, but no executed actions.")
    try:
        plugin = plugins.load_bench(bench)
        axes = plugin.dataset_axes() if isinstance(plugin, DataSetBench) else SAME_AXES
    except EvalkitError as error:
        raise DataSetError(f"{path} was recorded in bench '{bench}', which cannot be loaded: {error}") from error
    first = axes.sim_from_model(track.proprio[:1], track.arms)[0].astype(np.float32)
    return Executed(
        source=path,
        layout=OSC_DELTA_BASE if track.raw else EE_POSE_BASE,  # the only two that `Recording` writes
        arms=track.arms,
        first_proprio=first,
        actions_nd=np.asarray(track.executed, np.float32),
    )
