"""Which predicted clip and view belong to which ground truth.

In: two folders. Out: one `ClipPair` per clip, and the clips that one side alone has.
Read next: `clip_files.py`, which finds the clips; `evalkit/score/folder_clip.py`, which scores a pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from evalkit.contracts.errors import BadConfig
from evalkit.score.results.coverage import NUM_NAMED
from evalkit.score.sources.camera_files import view_names
from evalkit.score.sources.clip_files import (
    CAMERA_FILES,
    DEFAULT_VIEW,
    READABLE,
    ClipFiles,
    Side,
    find_clips,
    folders_below,
)

MAX_CAMERA_FILES = 100
"""Camera files that are read to learn the names of views."""


@dataclass(frozen=True, kw_only=True)
class ClipPair:
    """A clip of the prediction and its ground truth.

    Attributes:
        name: Of the clip.
        task: First folders of the name; the name itself if the clip lies in no folder.
        index: Position among the clips of its task.
        pred: Files of the prediction.
        true: Files of the ground truth.
    """

    name: str
    task: str
    index: int
    pred: ClipFiles
    true: ClipFiles


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """All clips of two folders.

    Attributes:
        scored: Clips with a ground truth, in order.
        without_truth: Predicted clips without one, with task and index.
    """

    scored: tuple[ClipPair, ...]
    without_truth: tuple[ClipPair, ...]


def pair_clips(pred_dir: Path, true_dir: Path) -> Pairs:
    """Return the clips of two folders, paired by name.

    Raises:
        BadConfig: If a folder does not exist, the ground truth has no clip, or no clip has a prediction.
    """
    for what, folder in (("PRED_DIR", pred_dir), ("GT_DIR", true_dir)):
        if not folder.exists():
            raise BadConfig(f"{what} {folder} does not exist.")
    if pred_dir.resolve() == true_dir.resolve():
        raise BadConfig(f"PRED_DIR and GT_DIR are both {pred_dir}. Give two folders: predictions, then ground truth.")
    known = set(islice(_stated_views([true_dir, pred_dir]), 1000))
    true = find_clips(true_dir, known)
    known |= {view for clip in true.clips.values() for _, view in clip.streams} - {DEFAULT_VIEW}
    pred = _same_name(find_clips(pred_dir, known), true)
    _check_any(pred, true)
    tasks = _tasks([*true.clips, *(name for name in pred.clips if name not in true.clips)], true_dir)

    def pair(name: str) -> ClipPair:
        task, index = tasks[name]
        return ClipPair(name=name, task=task, index=index, pred=pred.clip(name), true=true.clip(name))

    without = [name for name, clip in pred.clips.items() if name not in true.clips and clip.streams]
    return Pairs(scored=tuple(map(pair, true.clips)), without_truth=tuple(map(pair, without)))


def same_views(pred: ClipFiles, views: Sequence[str]) -> dict[str, str]:
    """Return the prediction's name of each view, for the views that it has.

    A name may differ in upper and lower case; where both sides have one view and one of them names none, they belong
    together.
    """
    own = {view for _, view in pred.streams}
    if len(own) == 1 and len(views) == 1 and (DEFAULT_VIEW in own or views[0] == DEFAULT_VIEW):
        return {views[0]: next(iter(own))}
    lower = {view.lower(): view for view in own}
    return {
        view: view if view in own else lower[view.lower()] for view in views if view in own or view.lower() in lower
    }


def _stated_views(folders: Sequence[Path]) -> Iterator[str]:
    for root in folders:
        files = (folder / name for folder, _ in folders_below(root) for name in CAMERA_FILES)
        for path in islice((path for path in files if path.is_file()), MAX_CAMERA_FILES):
            yield from view_names(path)


def _same_name(pred: Side, true: Side) -> Side:
    """Return the prediction with its clip under the ground truth's name, where each side is one clip or one file."""
    one = len(pred.clips) == len(true.clips) == 1
    alone = [side.root.is_file() or "." in side.clips for side in (pred, true)]
    if not one or not any(alone):
        return pred
    [name], [clip] = true.clips, pred.clips.values()
    return replace(pred, clips={name: clip})


def _check_any(pred: Side, true: Side) -> None:
    if not true.clips:
        there = _unreadable(true)
        if pred.clips and any(pred.root.rglob(CAMERA_FILES[0])):
            there += f" {pred.root} has clips with cameras: name the folder of the ground truth second."
        raise BadConfig(f"{true.root} holds no clip: no image, video or array that can be read.{there}")
    if any(clip.streams or clip.file(("states.npz", "states.npy")) for clip in map(pred.clip, true.clips)):
        return
    if not pred.clips:
        raise BadConfig(
            f"{pred.root} holds no prediction: no image, video or array that can be read.{_unreadable(pred)}"
        )
    hint = ""
    if any(pred.root.rglob(CAMERA_FILES[0])) and not any(true.root.rglob(CAMERA_FILES[0])):
        hint = f" {pred.root} has cameras: name the folder of the ground truth second."
    raise BadConfig(
        f"{pred.root} holds no prediction named {_few(true.clips)}, as the clips of {true.root} are; it holds "
        f"{_few(pred.clips)}. Give a clip the same name on both sides.{hint}"
    )


def _unreadable(side: Side) -> str:
    if not side.unused:
        return ""
    (parts, suffix), count = next(iter(side.unused.items()))
    where = "/".join(parts) or "It"
    return f" {where} holds {count} {suffix} file{'s' * (count > 1)}; readable are {READABLE}."


def _few(names: Mapping[str, ClipFiles]) -> str:
    shown = [name if name != "." else "the folder itself" for name in islice(names, NUM_NAMED)]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _tasks(names: Sequence[str], true_dir: Path) -> dict[str, tuple[str, int]]:
    """Return task and index of each clip.

    Example:
        >>> _tasks(["lift/ep_0", "lift/ep_1", "open", "."], Path("gt"))
        {'lift/ep_0': ('lift', 0), 'lift/ep_1': ('lift', 1), 'open': ('open', 0), '.': ('gt', 0)}
    """
    counts: dict[str, int] = {}
    tasks = {}
    for name in names:
        task = true_dir.resolve().stem if name == "." else name.rpartition("/")[0] or name
        tasks[name] = task, counts.get(task, 0)
        counts[task] = counts.get(task, 0) + 1
    return tasks
