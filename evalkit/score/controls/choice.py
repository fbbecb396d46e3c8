"""What each control asks a policy for: other actions, or another instruction, in place of the recorded ones.

In: recorded episodes, one chunk. Out: the actions and the instruction of the request; or why there are none.
Read next: `motions.py`, how actions are moved and mirrored; `evalkit/score/dataset.py`, which asks.

All requests for a chunk have the same noise seed, so that predictions differ by actions or instruction alone. The
choice depends on the recording alone, so that all policies with chunks of one length are asked for the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evalkit.contracts.errors import RunFolderError
from evalkit.contracts.spec import PolicySpec
from evalkit.dataset.layout import BrokenEpisode
from evalkit.score.controls.motions import NoSuchMotion, lateral_axis, mirrored, moved
from evalkit.score.results.names import CONTROLS
from evalkit.score.sources.recorded import Entry, Motion, Outline, Recorded, Source, actions_from
from evalkit.store.clips import ClipChunk

NO_ACTIONS = "the recording of this episode holds no executed actions"

SAME_ACTIONS = 1e-3
"""Actions that differ by less than this, in the units of the layout, are the same."""


class NoControl(Exception):
    """A control that a chunk has not; the sentence says why."""


class Asked(NamedTuple):
    """What a policy is asked for: the outcome of actions, K,14 float32 (None for its own), under an instruction."""

    actions: np.ndarray | None
    instruction: str


class Controls:
    """The controls of the episodes of a recording.

    Args:
        source: The recording.
        policy: Its chunks are as long as this policy's.
        names: The controls, some of `CONTROLS`.
    """

    def __init__(self, source: Source, policy: PolicySpec, names: Sequence[str]) -> None:
        self.names = tuple(name for name in CONTROLS if name in names)
        self._source, self._policy = source, policy
        self._outlines = source.outlines() if self.names else []
        self._lateral = lateral_axis(source.bench) if "mirrored_action" in self.names else np.zeros(3)
        self._motions: dict[str, Motion] = {}

    def ask(self, control: str, entry: Entry, recorded: Recorded, chunk: ClipChunk) -> Asked:
        """Return what a control asks for from the first frame of a chunk.

        Raises:
            NoControl: If the recording has no such actions or no such instruction.
        """
        if control == "wrong_instruction":
            own = recorded_actions(recorded, chunk, self._policy.chunk_len)
            return Asked(own, self._other_instruction(recorded))
        return Asked(self.actions(control, entry, recorded, chunk), recorded.instruction)

    def actions(self, control: str, entry: Entry, recorded: Recorded, chunk: ClipChunk) -> np.ndarray:
        """Return the actions, K,14 float32, of a control that has others than the recorded ones; raises as `ask`."""
        own = recorded_actions(recorded, chunk, self._policy.chunk_len)
        start, env = chunk.start.proprio_fd[0], recorded.env
        try:
            if control == "other_branch":
                actions = self._other_actions(entry, recorded, chunk)
            else:
                actions = mirrored(own, start, env.arms, env.action_layout, self._lateral)
        except NoSuchMotion as error:
            raise NoControl(str(error)) from error
        if np.abs(actions - own).max() < SAME_ACTIONS:
            raise NoControl("the actions of the control are the recorded ones")
        return actions

    def _other_actions(self, entry: Entry, recorded: Recorded, chunk: ClipChunk) -> np.ndarray:
        """Return the motion of the chunk at the same place in the next episode of the task.

        If no other episode of the task can be read, that of the chunk half an episode away.
        """
        alike = [outline for outline in self._outlines if outline.task == recorded.episode.task]
        place = next((at for at, outline in enumerate(alike) if outline.entry == entry), -1)
        for other in (*alike[place + 1 :], *alike[: max(place, 0)]):
            motion = self._motion(other)
            if motion is not None and len(motion.starts):
                return self._moved(motion, chunk.chunk_idx % len(motion.starts), recorded, chunk)
        motion = self._motion(alike[place]) if place >= 0 else None
        if motion is None or len(motion.starts) < 2:
            raise NoControl(f"the data hold no other chunk of actions of the task {recorded.episode.task}")
        half_away = chunk.chunk_idx + len(motion.starts) // 2
        return self._moved(motion, half_away % len(motion.starts), recorded, chunk)

    def _moved(self, motion: Motion, place: int, recorded: Recorded, chunk: ClipChunk) -> np.ndarray:
        step, proprio = list(motion.starts.items())[place]
        layout = recorded.env.action_layout
        actions = actions_from(motion.actions_nd, step, self._policy.chunk_len, layout)
        return moved(actions, proprio, chunk.start.proprio_fd[0], recorded.env.arms, layout)

    def _motion(self, outline: Outline) -> Motion | None:
        """Return the actions of an episode; None if it is broken or holds none. The last few are kept."""
        key = str(outline.entry.path)
        if key not in self._motions:
            try:
                motion = self._source.motion(outline.entry, self._policy)
            except (RunFolderError, BrokenEpisode):
                return None
            if motion is None:
                return None
            self._motions = {**dict(list(self._motions.items())[-1:]), key: motion}
        return self._motions[key]

    def _other_instruction(self, recorded: Recorded) -> str:
        """Return the instruction of the task after this one, in the order of the data, that says something else."""
        by_task: Mapping[str, str] = {outline.task: outline.instruction for outline in reversed(self._outlines)}
        tasks = list(dict.fromkeys(outline.task for outline in self._outlines))
        place = tasks.index(recorded.episode.task) if recorded.episode.task in tasks else -1
        for task in (*tasks[place + 1 :], *tasks[: max(place, 0)]):
            if by_task[task] != recorded.instruction:
                return by_task[task]
        raise NoControl("the data hold no task with another instruction")


def recorded_actions(recorded: Recorded, chunk: ClipChunk, chunk_len: int) -> np.ndarray:
    """Return the recorded actions from the first frame of a chunk on, K,14.

    Raises:
        NoControl: If the episode holds none.
    """
    if recorded.actions_nd is None:
        raise NoControl(NO_ACTIONS)
    return actions_from(recorded.actions_nd, chunk.step_idx, chunk_len, recorded.env.action_layout)
