"""The ground truth of other actions: the simulator replays an episode up to a chunk and goes on with other actions.

In: recorded episodes, the actions of a control. Out: one clip of branches per episode and control, in a folder.
Read next: `choice.py`, which actions; `dependence.py`, what the ground truths are compared with.

    CONTROL/CHUNK_LEN-every-STRIDE/TASK/INDEX.h5       a clip (`evalkit/store/clips.py`) whose chunks are the branches

A branch counts only if the replay leads back to the recorded frame: the robot stands where it stood, and the images of
the static cameras show the same. Else the clip ends before it, and its `outcome` says why; so it does if the simulator
fails. Such an episode is tried again the next time, the others go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evalkit.contracts.env import Env
from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError, RunFolderError
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.text import count_of
from evalkit.contracts.types import ARM_PROPRIO, QUAT_WXYZ, Observation, OnProgress
from evalkit.dataset.axes import rotation_from_wxyz
from evalkit.dataset.layout import BrokenEpisode
from evalkit.score.controls.choice import NO_ACTIONS, Controls, NoControl
from evalkit.score.results.names import BRANCHES
from evalkit.score.sources.recorded import Entry, Recorded, Source
from evalkit.store.clips import ClipChunk, ClipHeader, ClipReader, ClipWriter, Frames

COMPLETE = "complete"
"""Outcome of a clip of branches that has one for each chunk of its episode."""

FINISHED = (COMPLETE, NO_ACTIONS)
"""Outcomes that another try cannot change."""

MOST_FAILED = 5
"""Failed episodes that are listed by name."""

SAME_POSITION_M, SAME_ROTATION_RAD, SAME_GRIPPER, SAME_LEVELS = 2e-3, 0.02, 0.05, 2.0
"""Largest differences from the recorded frame at which a replay has led back to it: end effector, gripper, and the mean
absolute difference of the static images in 8-bit levels."""


@dataclass(frozen=True, kw_only=True)
class BranchFolder:
    """Where branches are kept.

    Attributes:
        root: The folder.
        policy: Chunks and frames are those of this policy.
    """

    root: Path
    policy: PolicySpec

    def path(self, control: str, recorded: Recorded) -> Path:
        """Return the clip of an episode's branches."""
        cut = f"{self.policy.chunk_len}-every-{self.policy.frame_stride}"
        return self.root / control / cut / recorded.episode.task / f"{recorded.episode.index:04d}.h5"

    def read(self, control: str, recorded: Recorded, chunk: ClipChunk, actions: np.ndarray) -> Frames:
        """Return the ground truth of other actions from the first frame of a chunk.

        Raises:
            NoControl: If the episode could not be replayed up to there.
            BadConfig: If the clip is missing or broken, or belongs to other actions or another recording.
        """
        path = self.path(control, recorded)
        try:
            with ClipReader(path) as clip:
                starts = list(clip.read_starts())
                if chunk.step_idx not in starts:
                    raise NoControl(clip.header.outcome)
                branch = clip.read(starts.index(chunk.step_idx))
        except RunFolderError as error:
            raise BadConfig(f"{error} Remove the file, and the same command executes its branches again.") from error
        known = branch.actions_nd
        if clip.header.episode != recorded.episode or known is None or not np.array_equal(known, actions):
            raise BadConfig(
                f"{path} holds the outcome of other actions than `{control}` takes from this recording; give "
                "--branches another folder, or remove the file."
            )
        return branch.true


@dataclass(frozen=True, kw_only=True)
class BranchJob:
    """The branches of one episode that are missing, by control."""

    entry: Entry
    paths: dict[str, Path]
    num_chunks: int


def missing_branches(source: Source, controls: Controls, folder: BranchFolder) -> list[BranchJob]:
    """Return the episodes of which branches are missing or failed; broken episodes are left to the scorer."""
    jobs = []
    for entry in source.episodes:
        try:
            with source.open(entry, folder.policy) as recorded:
                paths = {name: folder.path(name, recorded) for name in controls.names if name in BRANCHES}
                missing = {name: path for name, path in paths.items() if not _is_finished(path, recorded)}
        except (RunFolderError, BrokenEpisode):
            continue
        if missing:
            motion = source.motion(entry, folder.policy)
            jobs.append(BranchJob(entry=entry, paths=missing, num_chunks=0 if motion is None else len(motion.starts)))
    return jobs


def _is_finished(path: Path, recorded: Recorded) -> bool:
    """Return whether a clip is one that stays: of all branches, or of another recording, which `read` refuses."""
    if not path.exists():
        return False
    try:
        with ClipReader(path) as clip:
            return clip.header.outcome in FINISHED or clip.header.episode != recorded.episode
    except RunFolderError:  # `read` says so
        return True


def execute_missing(
    source: Source,
    policy: PolicySpec,
    names: Sequence[str],
    root: Path,
    *,
    on_progress: OnProgress | None = None,
) -> list[str]:
    """Execute the branches that a folder lacks, one episode after another; return a sentence for each that failed.

    Each clip is a whole file or none. An episode whose simulator fails has the branches up to there; the next episode
    has a new process.

    Args:
        source: The recording.
        policy: Chunks and frames are those of this policy.
        names: Controls; those without a ground truth of their own are left out.
        root: The folder.
        on_progress: Called with (episodes done, episodes in all).

    Raises:
        EvalkitError: If the simulator is missing, or cannot be built for the first episode.
    """
    controls, folder = Controls(source, policy, names), BranchFolder(root=root, policy=policy)
    jobs, failed = missing_branches(source, controls, folder), list[str]()
    with closing(_Envs(source)) as envs:
        for num_done, job in enumerate(jobs, start=1):
            with source.open(job.entry, folder.policy) as recorded:
                outcome = _write_branches(envs, controls, policy, job, recorded)
                if outcome not in FINISHED:
                    failed.append(f"{recorded.episode.key}: {outcome}")
            if on_progress is not None:
                on_progress(num_done, len(jobs))
    return failed


def branch_sentences(failed: Sequence[str]) -> list[str]:
    """Return what to say about the episodes that `execute_missing` could not branch.

    Example:
        >>> branch_sentences(["Lift/0000: the simulator failed: it is gone"])[0].partition(":")[0]
        '1 episode could not be branched to its end'
    """
    if not failed:
        return []
    return [
        f"{count_of(len(failed), 'episode')} could not be branched to its end: the rows of what is missing are "
        "unavailable and say why; the same command tries again.",
        *failed[:MOST_FAILED],
        *([f"... and {len(failed) - MOST_FAILED} more"] if len(failed) > MOST_FAILED else []),
    ]


class _Envs:
    """The env of each episode: that of the episode before if it has the same task, or a new process."""

    def __init__(self, source: Source) -> None:
        self._source, self._stack = source, ExitStack()
        self._env: Env | None = None
        self._key, self._was_built = "", False

    def of(self, entry: Entry, recorded: Recorded) -> Env:
        """Return the env of an episode.

        Raises:
            BadConfig: If it is another one than that of the recording.
            EpisodeFault: If it cannot be built, though an env before could.
            EvalkitError: If it cannot be built.
        """
        key = f"{recorded.env.env_id} {recorded.episode.setting}"
        if self._env is None or key != self._key:
            self.close()
            try:
                env = self._source.simulator(entry).start(recorded.episode)
            except EvalkitError as error:
                if self._was_built:
                    raise EpisodeFault("env", str(error)) from error
                raise
            self._env, self._key, self._was_built = self._stack.enter_context(closing(env)), key, True
        _check_env(self._env.spec, recorded.env)
        return self._env

    def close(self) -> None:
        """End the process; the next episode gets another one."""
        self._stack.close()
        self._env = None


def _check_env(env: EnvSpec, recorded: EnvSpec) -> None:
    for name in ("cameras", "image_hw_px", "arms", "action_layout"):
        if getattr(env, name) != getattr(recorded, name):
            raise BadConfig(
                f"{recorded.env_id} gives other {name} than the recording: {getattr(env, name)}, recorded "
                f"{getattr(recorded, name)}."
            )


def _write_branches(envs: _Envs, controls: Controls, policy: PolicySpec, job: BranchJob, recorded: Recorded) -> str:
    """Write the clips of an episode; return their outcome."""
    writers = {name: ClipWriter() for name in job.paths}
    try:
        outcome = _executed_branches(envs, controls, policy, job, recorded, writers)
        for name, writer in writers.items():
            stated = {"policy_id": name, "chunk_len": policy.chunk_len, "frame_stride": policy.frame_stride}
            header = ClipHeader(episode=recorded.episode, env_spec=recorded.env, policy_spec=stated, outcome=outcome)
            writer.save(job.paths[name], header)
    finally:
        for writer in writers.values():
            writer.close()
    return outcome


def _executed_branches(
    envs: _Envs,
    controls: Controls,
    policy: PolicySpec,
    job: BranchJob,
    recorded: Recorded,
    writers: dict[str, ClipWriter],
) -> str:
    """Add the branches of an episode to the clips; return the outcome."""
    try:
        env = envs.of(job.entry, recorded)
        for chunk, _, _ in recorded.chunks:
            if reason := _add_branches(env, controls, policy, job.entry, recorded, chunk, writers):
                return reason
    except EpisodeFault as fault:
        envs.close()
        return f"the simulator failed: {fault.reason}"
    return COMPLETE


def _add_branches(
    env: Env,
    controls: Controls,
    policy: PolicySpec,
    entry: Entry,
    recorded: Recorded,
    chunk: ClipChunk,
    writers: dict[str, ClipWriter],
) -> str:
    """Add the branches of one chunk; return why it cannot be reached, or an empty text."""
    for name, writer in writers.items():
        try:
            actions = controls.actions(name, entry, recorded, chunk)
        except NoControl as error:
            if recorded.actions_nd is None:
                return str(error)
            continue
        try:
            start = _replayed(env, recorded, chunk.step_idx)
            if difference := differs(start, chunk, recorded.env):
                return f"replayed up to step {chunk.step_idx}, {difference}"
            frames = list(_executed(env, actions, policy))
        except FloatingPointError as error:
            return f"after step {chunk.step_idx}, the simulation became unstable: {error}"
        writer.add(
            ClipChunk(
                chunk_idx=chunk.chunk_idx,
                step_idx=chunk.step_idx,
                num_executed=len(actions),
                frame_stride=policy.frame_stride,
                intrinsics_v33_px=chunk.intrinsics_v33_px,
                start=Frames.stack([start], like=start),
                true=Frames.stack(frames, like=start),
                predicted=None,
                actions_nd=actions,
            )
        )
    return ""


def _replayed(env: Env, recorded: Recorded, num_steps: int) -> Observation:
    """Return the observation after the recorded actions up to a step; nothing is rendered on the way."""
    assert recorded.actions_nd is not None
    env.begin(seed=recorded.episode.seed, max_steps=recorded.episode.max_steps)
    for action in recorded.actions_nd[:num_steps]:
        env.advance(action)
    return Observation(**env.observe(render=True))


def _executed(env: Env, actions: np.ndarray, policy: PolicySpec) -> Iterator[Observation]:
    """Execute actions; yield the observation of each future frame."""
    for step, action in enumerate(actions[: policy.num_future_frames * policy.frame_stride], start=1):
        env.advance(action)
        if step % policy.frame_stride == 0:
            yield Observation(**env.observe(render=True))


def differs(start: Observation, chunk: ClipChunk, env: EnvSpec) -> str:
    """Return how a replayed frame differs from the recorded one, or an empty text.

    Args:
        start: The replayed observation.
        chunk: Its first frame is the recorded one.
        env: Arms and cameras.
    """
    recorded = chunk.start.proprio_fd[0]
    for arm in env.arms:
        ours, theirs = (np.asarray(state, np.float64)[ARM_PROPRIO[arm]] for state in (start.proprio, recorded))
        apart_m = float(np.linalg.norm(ours[:3] - theirs[:3]))
        turned = rotation_from_wxyz(ours[QUAT_WXYZ]) * rotation_from_wxyz(theirs[QUAT_WXYZ]).inv()
        if apart_m > SAME_POSITION_M or turned.magnitude() > SAME_ROTATION_RAD:
            return (
                f"the {arm} end effector is {1000 * apart_m:.1f} mm and {np.degrees(turned.magnitude()):.1f} degrees "
                "from the recorded one (the recording starts displaced, or was made by another simulator)"
            )
        if abs(ours[7] - theirs[7]) > SAME_GRIPPER:
            return f"the {arm} gripper is {ours[7]:.2f} open, recorded {theirs[7]:.2f}"
    static = [view for view, camera in enumerate(env.cameras) if camera.kind == "static"]
    images = np.asarray(start.rgb)[static].astype(np.int16), chunk.start.rgb_fvhwc_u8[0, static].astype(np.int16)
    levels = float(np.abs(images[0] - images[1]).mean())
    if levels > SAME_LEVELS:
        return f"the static images differ from the recorded ones by {levels:.1f} of 255 levels on average"
    return ""
