"""Which ground truth a result file was scored against: a hash of every frame.

In: the chunks that were scored. Out: `TruthHashes`, stored in the result file.
Read next: `table.py`, which stores it; `evalkit/report/compare.py`, which refuses to compare different ground truths.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from evalkit.contracts.spec import EnvSpec
from evalkit.store.clips import ClipChunk


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredChunk:
    """A chunk, or a part of a clip, that was scored.

    Attributes:
        task: Of the clip.
        index: Of the clip.
        env: Cameras of the views.
        chunk: Ground truth and prediction.
        first_frame_idx: Horizon of its first scored frame; where it is not 0, the frame before was scored earlier.
        robot_fvhw: Pixels that show the robot, bool; None without masks.
    """

    task: str
    index: int
    env: EnvSpec
    chunk: ClipChunk
    first_frame_idx: int = 0
    robot_fvhw: np.ndarray | None = None

    @property
    def key(self) -> str:
        """Return the name of its clip."""
        return f"{self.task}/{self.index:04d}"

    @property
    def frame_idxs(self) -> Mapping[int, int]:
        """Return the horizon of each scored frame, by its position in the chunk."""
        lead = 1 if self.first_frame_idx else 0
        return {at: at - lead + self.first_frame_idx for at in range(lead, len(self.chunk.true.rgb_fvhwc_u8))}


OnChunk = Callable[[ScoredChunk], None]


def seen_by(*listeners: OnChunk | None) -> OnChunk:
    """Return one listener that calls several."""
    given = [listener for listener in listeners if listener is not None]

    def on_chunk(scored: ScoredChunk) -> None:
        for listener in given:
            listener(scored)

    return on_chunk


@dataclass
class TruthHashes:
    """A hash of the ground truth of each frame: images, depth, robot masks, cameras, states and the start frame.

    Attributes:
        clips: By clip, then by `chunk/horizon`.
    """

    clips: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, scored: ScoredChunk) -> None:
        """Add the frames of a chunk."""
        chunk, frames = scored.chunk, self.clips.setdefault(scored.key, {})
        for at, frame_idx in scored.frame_idxs.items():
            found = hashlib.blake2b(digest_size=8)
            for array in (
                chunk.true.rgb_fvhwc_u8[at],
                chunk.true.depth_fvhw_m[at],
                chunk.true.proprio_fd[at],
                chunk.true.T_base_cam_fv44[at],
                chunk.intrinsics_v33_px,
                chunk.start.rgb_fvhwc_u8,
                chunk.start.depth_fvhw_m,
                *((scored.robot_fvhw[at],) if scored.robot_fvhw is not None else ()),
            ):
                found.update(np.ascontiguousarray(array).data)
            found.update(json.dumps([camera.T_ee_cam for camera in scored.env.cameras]).encode())
            frames[f"{chunk.chunk_idx}/{frame_idx}"] = found.hexdigest()

    def to_text(self) -> str:
        """Return it as JSON."""
        return json.dumps(self.clips)

    @classmethod
    def from_text(cls, text: str | bytes) -> TruthHashes:
        """Return what `to_text` wrote."""
        return cls(json.loads(text))
