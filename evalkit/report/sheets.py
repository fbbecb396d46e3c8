"""Contact sheets of scored clips, written while they are scored, when their frames are in memory anyway.

In: the chunks that a scorer sees. Out: one PNG per clip, with a few horizons of each view.
Read next: `contact_sheet.py`, which draws one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from evalkit.contracts.types import Prediction
from evalkit.report.contact_sheet import contact_sheet, encode_sheet
from evalkit.score.results.truth import ScoredChunk
from evalkit.store.clips import ClipChunk, Frames
from evalkit.store.files import write_whole

Item = TypeVar("Item")

NUM_SHOWN = 4
"""Horizons on a sheet."""

MAX_SHEETS = 50
"""Clips that get a sheet; each takes about as long as scoring a few frames."""

SHEETS = "sheets"
"""Folder of the sheets next to `scores.parquet`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Frame:
    """One frame of a clip, as a chunk of one frame."""

    frame_idx: int
    chunk: ClipChunk


class ContactSheets:
    """Writes one contact sheet per clip; use it in a `with` statement and give it to a scorer as `on_chunk`.

    A clip is shown from its first frame on: of recorded episodes the first chunk, of folders the whole clip. Sheets of
    an earlier scoring are removed. A sheet that cannot be drawn or written costs no score: `problem` says why.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.num_written = 0
        self.problem = ""
        self._clip: ScoredChunk | None = None
        self._frames: list[_Frame] = []

    def __call__(self, scored: ScoredChunk) -> None:
        """Keep some frames of a chunk; write the sheet of the clip before."""
        try:
            self._keep(scored)
        except Exception as error:  # an image never costs a number
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.problem = self.problem or f"A contact sheet is missing: {type(error).__name__}: {error}"
        self._frames = []

    def _keep(self, scored: ScoredChunk) -> None:
        if self._clip is None or scored.key != self._clip.key:
            self._write()
            self._clip = scored
        elif scored.first_frame_idx == 0:  # another chunk of the same clip
            return
        if self.num_written >= MAX_SHEETS or scored.chunk.predicted is None:
            return
        at = list(scored.frame_idxs)
        self._frames += [_Frame(frame_idx=scored.frame_idxs[i], chunk=_one(scored.chunk, i)) for i in _spread(at)]
        if len(self._frames) > 2 * NUM_SHOWN:
            self._frames = _spread(self._frames)

    def __enter__(self) -> ContactSheets:
        for sheet in self.folder.glob("*.png"):
            sheet.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._write()
        except Exception as error:
            self._give_up(error)

    def _write(self) -> None:
        if self._clip is not None and self._frames:
            frames = _spread(self._frames)
            names = [f"frame {frame.frame_idx + 1}" for frame in frames]
            image = contact_sheet(_joined([f.chunk for f in frames]), self._clip.env.cameras, names=names)
            task = self._clip.task.replace("/", "_")
            write_whole(self.folder / f"{task}_{self._clip.index:04d}.png", encode_sheet(image))
            self.num_written += 1
        self._clip, self._frames = None, []


def _spread(items: Sequence[Item]) -> list[Item]:
    """Return at most `NUM_SHOWN` items, evenly spaced, the first and the last among them."""
    places = np.unique(np.linspace(0, len(items) - 1, min(NUM_SHOWN, len(items))).round().astype(int))
    return [items[place] for place in places]


def _one(chunk: ClipChunk, at: int) -> ClipChunk:
    """Return a copy of one frame of a chunk."""
    true = Frames(**{name: array[at : at + 1].copy() for name, array in vars(chunk.true).items()})
    predicted = chunk.predicted
    assert predicted is not None
    depth = None if predicted.depth is None else predicted.depth[at : at + 1].copy()
    return replace(
        chunk, true=true, predicted=Prediction(rgb=predicted.rgb[at : at + 1].copy(), depth=depth, proprio=None)
    )


def _joined(chunks: Sequence[ClipChunk]) -> ClipChunk:
    true = Frames(**{name: np.concatenate([vars(c.true)[name] for c in chunks]) for name in vars(chunks[0].true)})
    predictions = [chunk.predicted for chunk in chunks if chunk.predicted is not None]
    depths = [prediction.depth for prediction in predictions if prediction.depth is not None]
    predicted = Prediction(
        rgb=np.concatenate([prediction.rgb for prediction in predictions]),
        depth=np.concatenate(depths) if depths else None,
        proprio=None,
    )
    return replace(chunks[0], true=true, predicted=predicted)
