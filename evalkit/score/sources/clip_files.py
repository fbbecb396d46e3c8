"""Which clips a folder holds, and which files belong to each view of each clip.

In: a folder of predictions or of ground truth, laid out in any way that docs/scoring.md names. Out: `ClipFiles`.
Read next: `frame_names.py` for the rules about names; `images.py`, which reads the files.

Every group of numbered images, every video and every array is one stream. The parts of its path say what it is: a
modality, a view, the rest is the name of the clip. Nothing is decoded here.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from evalkit.score.results.outcome import Modality
from evalkit.score.sources.array_files import ArrayInfo, list_arrays
from evalkit.score.sources.frame_names import (
    CONTAINERS,
    GENERIC_WORDS,
    MODALITY_WORDS,
    group_frames,
    is_camera_name,
    split_camera,
    split_modality,
)

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".exr")
VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")
ARRAYS = (".npy", ".npz")
READABLE = ", ".join((*IMAGES, *VIDEOS, *ARRAYS))
NOT_FRAMES = (".json", ".txt", ".md", ".csv", ".yaml", ".yml", ".parquet", ".sh", ".py", ".html", ".log")
"""Files that lie among frames and are never meant as frames."""

CAMERA_FILES = ("cameras.json", "camera.json", "transforms.json")
STATES = ("states.npz", "states.npy")
SCORES = "scores.parquet"
START, MASK = "start", "mask"
DEFAULT_VIEW = "camera"
"""Name of the only view of a clip that names none."""

StreamKind = Literal["images", "arrays", "video", "array"]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The files of one view in one modality.

    Attributes:
        kind: One image or array per frame, or one video or array for all frames.
        paths: Its files, in order.
        numbers: The frames' numbers, from the files' names; empty where the names hold none.
        array: Shape and type of the array, or of the first one.
        problem: Why the files are no sequence of frames; empty if they are.
    """

    kind: StreamKind
    paths: tuple[Path, ...]
    numbers: tuple[int, ...] = ()
    array: ArrayInfo | None = None
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class ClipFiles:
    """The files of one clip on one side.

    Attributes:
        name: Path below the folder, `.` for the folder itself.
        root: The folder.
        streams: By modality and view.
        masks: By view, the pixels that show the robot, if the clip has a `mask` folder.
        start: The last frame before the prediction, if the clip has a `start` folder.
        unused: Files of unknown type: where they lie, their ending, how many.
        several: Two streams that would be the same view, as a sentence; empty if there are none.
    """

    name: str
    root: Path
    streams: Mapping[tuple[Modality, str], Stream] = field(default_factory=dict)
    masks: Mapping[str, Stream] = field(default_factory=dict)
    start: ClipFiles | None = None
    unused: tuple[tuple[str, str, int], ...] = ()
    several: str = ""

    def views(self, modality: Modality) -> list[str]:
        """Return the views of a modality, sorted."""
        return sorted(view for found, view in self.streams if found == modality)

    def has(self, modality: Modality) -> bool:
        """Return whether there is a stream of a modality."""
        return any(found == modality for found, _ in self.streams)

    def file(self, names: Iterable[str], *, shared: bool = False) -> Path | None:
        """Return a file of the clip by its name: in its folder, or next to it as `CLIP_NAME`, or None.

        Args:
            names: File names, the first one that exists is taken.
            shared: Also search the folders above, up to the root.
        """
        folder = self.root / self.name
        candidates = [folder / name for name in names]
        if self.name != ".":
            stem = folder.name
            candidates += [folder.with_name(f"{stem}{sep}{name}") for name in names for sep in "_."]
            if shared:
                above = [parent for parent in folder.parents if parent.is_relative_to(self.root)]
                candidates += [folder.with_name(f"{stem}.json"), *(parent / name for parent in above for name in names)]
        return next((path for path in candidates if path.is_file()), None)

    def contents(self) -> str:
        """Return what lies in the clip, in words, for a message.

        Example:
            >>> ClipFiles(name="a", root=Path("gt"), unused=(("rgb/front", ".gif", 6),)).contents()
            'rgb/front holds 6 .gif files'
        """
        parts = [f"{modality}/{view} ({describe(stream)})" for (modality, view), stream in sorted(self.streams.items())]
        parts += [f"{where} holds {count} {suffix} file{'s' * (count > 1)}" for where, suffix, count in self.unused]
        return "; ".join(parts) or "no file of frames"


class Found(NamedTuple):
    """A stream, the parts of its path, and the modality that its type alone shows."""

    parts: tuple[str, ...]
    modality: Modality | None
    stream: Stream


class Role(NamedTuple):
    """What a stream is: of which clip, modality and view."""

    clip: tuple[str, ...]
    modality: Modality
    view: str


def describe(stream: Stream) -> str:
    """Return a stream in a few words, for example `6 .png files`."""
    suffix = stream.paths[0].suffix
    return suffix.lstrip(".") if len(stream.paths) == 1 else f"{len(stream.paths)} {suffix} files"


@dataclass(frozen=True, kw_only=True)
class Side:
    """All clips of one side.

    Attributes:
        root: The folder, or the only file.
        clips: By name, in order.
        unused: Files of unknown type, by the parts of their folder and their ending.
    """

    root: Path
    clips: Mapping[str, ClipFiles]
    unused: Mapping[tuple[tuple[str, ...], str], int]

    def clip(self, name: str) -> ClipFiles:
        """Return a clip; one without frames if the side has none of this name."""
        parts = () if name == "." else tuple(name.split("/"))
        return self.clips.get(name) or ClipFiles(name=name, root=self.root, unused=_unused_below(parts, self.unused))


def find_clips(root: Path, known_views: Collection[str] = ()) -> Side:
    """Return the clips of a folder (or of one video, array or image file).

    Args:
        root: The folder, or the file.
        known_views: Names of views that a camera file or the other side states.
    """
    if root.is_file():
        clips = _clips(root, list(_streams([root], ())), {}, known_views, ())
        return Side(root=root, clips=clips, unused={})
    found, unused, marked = list[Found](), dict[tuple[tuple[str, ...], str], int](), list[tuple[str, ...]]()
    for folder, parts in folders_below(root):
        paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        found += _streams([path for path in paths if path.name not in STATES], parts)
        unused.update(_unused(paths, parts))
        if any(path.name in CAMERA_FILES for path in paths):
            marked.append(parts)
    return Side(root=root, clips=_clips(root, found, unused, known_views, marked), unused=unused)


def folders_below(root: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield the folders below a root with the parts of their paths; a linked folder once, a folder of scores never."""
    seen: set[str] = set()
    for place, names, files in os.walk(root, followlinks=True):
        if SCORES in files and Path(place) != root:
            names.clear()  # its images are evalkit's own
            continue
        real = os.path.realpath(place)
        names[:] = [] if real in seen else sorted(name for name in names if not name.startswith("."))
        if real not in seen:
            yield Path(place), Path(place).relative_to(root).parts
        seen.add(real)


def _streams(paths: Iterable[Path], parts: tuple[str, ...]) -> Iterator[Found]:
    by_suffix: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        by_suffix[path.suffix.lower()].append(path)
    images = [path for suffix in IMAGES for path in by_suffix[suffix]]
    groups = group_frames(images)
    for group in groups:
        label = _label(group.label, alone=len(groups) == 1, numbered=bool(group.numbers))
        stream = Stream(kind="images", paths=group.paths, numbers=group.numbers, problem=_repeats(group.repeated))
        yield Found((*parts, label) if label else parts, None, stream)
    for path in (path for suffix in VIDEOS for path in by_suffix[suffix]):
        yield Found((*parts, path.stem), None, Stream(kind="video", paths=(path,)))
    yield from _array_streams([path for suffix in ARRAYS for path in by_suffix[suffix]], parts)


def _array_streams(paths: list[Path], parts: tuple[str, ...]) -> Iterator[Found]:
    """Yield arrays of whole clips, and groups of arrays that hold one frame each."""
    frames: dict[str | None, list[tuple[Path, ArrayInfo]]] = defaultdict(list)
    for path in paths:
        for array in list_arrays(path, _modality_of((*parts, path.stem))):
            if array.one_frame:
                frames[array.key].append((path, array))
            else:
                yield Found((*parts, path.stem), array.modality, Stream(kind="array", paths=(path,), array=array))
    for one_frame in frames.values():
        arrays = dict(one_frame)
        groups = group_frames(arrays)
        for group in groups:
            label = _label(group.label, alone=len(groups) == 1, numbered=bool(group.numbers))
            stream = Stream(
                kind="arrays",
                paths=group.paths,
                numbers=group.numbers,
                array=arrays[group.paths[0]],
                problem=_repeats(group.repeated),
            )
            yield Found((*parts, label) if label else parts, arrays[group.paths[0]].modality, stream)


def _label(label: str, *, alone: bool, numbered: bool) -> str:
    """Return the label of a group of frames; a common start of the names of all frames in a folder says nothing."""
    says_something = split_modality(label)[1] is not None or is_camera_name(label)
    return label if says_something or not numbered or not alone else ""


def _repeats(number: int | None) -> str:
    return "" if number is None else f"frame {number} exists twice"


def _modality_of(parts: Iterable[str]) -> Modality | None:
    return next((modality for part in reversed(tuple(parts)) if (modality := split_modality(part)[1])), None)


def _unused(paths: Iterable[Path], parts: tuple[str, ...]) -> dict[tuple[tuple[str, ...], str], int]:
    counts: dict[tuple[tuple[str, ...], str], int] = defaultdict(int)
    for path in paths:
        if path.suffix.lower() not in (*IMAGES, *VIDEOS, *ARRAYS, *NOT_FRAMES):
            counts[parts, path.suffix or "nameless"] += 1
    return counts


def _clips(
    root: Path,
    found: Iterable[Found],
    unused: Mapping[tuple[tuple[str, ...], str], int],
    known_views: Collection[str],
    marked: Iterable[tuple[str, ...]],
) -> dict[str, ClipFiles]:
    """Return clips from streams and from the places of camera files."""
    shown = [item for item in found if MASK not in item.parts]
    masks = [
        item._replace(parts=tuple("rgb" if part == MASK else part for part in item.parts), modality=None)
        for item in found
        if MASK in item.parts
    ]
    starts = [item for item in shown if START in item.parts]
    others = [item for item in shown if START not in item.parts]
    marked = list(marked)
    clips: dict[tuple[str, ...], dict[tuple[Modality, str], Stream]] = defaultdict(dict)
    several: dict[tuple[str, ...], str] = {}
    for role, stream in _roles(others, known_views, marked):
        key = role.modality, role.view
        if key in clips[role.clip]:
            both = f"{clips[role.clip][key].paths[0]} and {stream.paths[0]}"
            several[role.clip] = f"{both} would both be the {role.modality} of view '{role.view}'; keep one"
        clips[role.clip][key] = stream
    covered = {clip[:length] for clip in clips for length in range(len(clip) + 1)}
    clips |= {parts: {} for parts in marked if parts not in covered}
    masks_of: dict[tuple[str, ...], dict[str, Stream]] = defaultdict(dict)
    for role, stream in _roles(masks, known_views, marked):
        masks_of[role.clip][role.view] = stream
    starts_of: dict[tuple[str, ...], list[Found]] = defaultdict(list)
    for item in starts:
        place = item.parts.index(START)
        starts_of[item.parts[:place]].append(item._replace(parts=item.parts[place + 1 :]))
    return {
        "/".join(parts) or ".": ClipFiles(
            name="/".join(parts) or ".",
            root=root if root.is_dir() else root.parent,
            streams=clips[parts],
            masks=masks_of.get(parts, {}),
            start=_start(root, parts, starts_of.get(parts, []), known_views),
            unused=_unused_below(parts, unused),
            several=several.get(parts, ""),
        )
        for parts in sorted(clips, key=_natural)
    }


def _natural(parts: tuple[str, ...]) -> list[list[tuple[int, int, str]]]:
    """Return a key that sorts `clip_2` before `clip_10`."""
    chunks = [["".join(chunk) for chunk in _digit_runs(part)] for part in parts]
    return [[(0, int(c), "") if c.isdecimal() else (1, 0, c) for c in part] for part in chunks]


def _digit_runs(text: str) -> Iterator[list[str]]:
    run: list[str] = []
    for character in text:
        if run and run[-1].isdecimal() != character.isdecimal():
            yield run
            run = []
        run.append(character)
    if run:
        yield run


def _start(root: Path, clip: tuple[str, ...], found: Iterable[Found], known_views: Collection[str]) -> ClipFiles | None:
    """Return the streams of a clip's `start` folder, given with their parts below it."""
    streams = {(role.modality, role.view): stream for role, stream in _roles(found, known_views, [()])}
    return ClipFiles(name="/".join((*clip, START)), root=root, streams=streams) if streams else None


def _unused_below(
    clip: tuple[str, ...], unused: Mapping[tuple[tuple[str, ...], str], int]
) -> tuple[tuple[str, str, int], ...]:
    return tuple(
        ("/".join(parts[len(clip) :]) or ".", suffix, count)
        for (parts, suffix), count in unused.items()
        if parts[: len(clip)] == clip
    )


def _roles(
    found: Iterable[Found], known_views: Collection[str], marked: Collection[tuple[str, ...]]
) -> list[tuple[Role, Stream]]:
    """Return the role of each stream; cameras at the end of a clip's name count where a clip has several of them."""
    roles = [(_role(item, known_views, marked), item.stream) for item in found]
    cameras: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for role, _ in roles:
        if role.view == DEFAULT_VIEW and role.clip and (split := _split_view(role.clip[-1], known_views)):
            cameras[(*role.clip[:-1], split[0])].add(split[1])
    return [(_with_suffix(role, cameras, known_views), stream) for role, stream in roles]


def _split_view(name: str, known_views: Collection[str]) -> tuple[str, str] | None:
    for view in known_views:
        if len(name) > len(view) + 1 and name.endswith(view) and name[-len(view) - 1] in "._-":
            return name[: -len(view) - 1], view
    return split_camera(name)


def _with_suffix(role: Role, cameras: Mapping[tuple[str, ...], set[str]], known_views: Collection[str]) -> Role:
    if role.view == DEFAULT_VIEW and role.clip and (split := _split_view(role.clip[-1], known_views)):
        clip = (*role.clip[:-1], split[0])
        if len(cameras[clip]) > 1 or split[1] in known_views:
            return role._replace(clip=clip, view=split[1])
    return role


def _role(found: Found, known_views: Collection[str], marked: Collection[tuple[str, ...]]) -> Role:
    """Return what the parts of a path mean."""
    parts = _without_first_generic(list(found.parts))
    modality, below = found.modality, None
    if parts:
        parts[-1], named = split_modality(parts[-1])
        modality = named or modality
        parts = [part for part in parts if part]
    for position, part in enumerate(parts):
        if part.lower() in MODALITY_WORDS:
            modality, below = MODALITY_WORDS[part.lower()], position
    if below is not None:
        del parts[below]
    parts = _without_last_generic(parts)
    last = parts[-1] if parts else ""
    is_view = bool(parts) and (last in known_views or is_camera_name(last))
    if below is not None and len(parts) == below + 1:
        is_view = is_view or below > 0 or tuple(parts[:-1]) in marked or _is_clip_itself(parts, known_views)
    if is_view:
        return Role(tuple(_without_last_generic(parts[:-1])), modality or "rgb", last)
    return Role(tuple(parts), modality or "rgb", DEFAULT_VIEW)


def _is_clip_itself(parts: list[str], known_views: Collection[str]) -> bool:
    """Return whether `rgb/NAME` at the root of a folder is a view rather than a clip: other views are known."""
    return bool(known_views) and parts[-1] not in known_views


def _without_first_generic(parts: list[str]) -> list[str]:
    """Return parts without a first one like `videos`, which names no clip."""
    return parts[1:] if len(parts) > 1 and parts[0].lower() in CONTAINERS else parts


def _without_last_generic(parts: list[str]) -> list[str]:
    """Return parts without a last one like `frames`, which names no clip and no view."""
    return parts[:-1] if parts and parts[-1].lower() in GENERIC_WORDS else parts
