"""Names of files and folders: frame numbers, modalities and views.

In: parts of a path. Out: the number in a frame's name; whether a name means RGB, depth or a camera.
Read next: `clip_files.py`, which sorts the files of a folder with these rules.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from evalkit.score.results.outcome import Modality

MODALITY_WORDS: Mapping[str, Modality] = {
    **dict.fromkeys(("rgb", "color", "colour", "colors", "colours"), "rgb"),
    **dict.fromkeys(("depth", "depths"), "depth"),
}
"""Folders and endings that name a modality; a folder below one of them is a view."""

GENERIC_WORDS = frozenset(
    (
        *("frame", "frames", "image", "images", "img", "imgs", "video", "videos", "step", "time", "t", "f"),
        *("out", "output", "pred", "prediction", "gt"),
    )
)
"""Words that say nothing about a clip or a view."""

CONTAINERS = frozenset(("frames", "images", "imgs", "video", "videos", "output", "pred", "prediction", "gt"))
"""Folders that may hold all clips and name none."""

CAMERA_WORDS = frozenset(
    (
        *("front", "side", "top", "bottom", "back", "left", "right", "head", "overhead", "wrist", "hand", "eye", "in"),
        *("gripper", "third", "first", "person", "static", "ego", "exo"),
    )
)
WRIST_WORDS = frozenset(("wrist", "hand", "gripper"))
"""Words in the name of a camera that an arm carries."""

_CAMERA_PATTERN = re.compile(r"(cam|camera|view|robot)\d*|\w+(view|cam)")
CAMERA_SUFFIX = re.compile(r"(cam|camera|view)\d*|\w+(view|cam)|front|side|top|head|overhead|wrist")
"""Words of a camera at the end of a clip's name; `left` and `right` may belong to the clip, as in `push_left`."""

_SEPARATORS = re.compile(r"[\s._\-#]+")
_FRAME_NUMBER = re.compile(r"(?:(?<=^)|(?<=[\s._\-])|(?<=frame)|(?<=image)|(?<=img)|(?<=step))\d+(?=$|[\s._\-])", re.I)


class FrameGroup(NamedTuple):
    """Files of one folder whose names differ in a number alone.

    Attributes:
        label: What the name says in addition to the number, for example `front` of `front_0001.png`.
        numbers: Of the files, in order; empty for a single file without a number.
        paths: The files.
        repeated: A number that two files share, or None.
    """

    label: str
    numbers: tuple[int, ...]
    paths: tuple[Path, ...]
    repeated: int | None


def words(name: str) -> list[str]:
    """Return the words of a name in lower case.

    Example:
        >>> words("Agent_view-0.left")
        ['agent', 'view', '0', 'left']
    """
    return [word for word in _SEPARATORS.split(name.lower()) if word]


def is_camera_name(name: str) -> bool:
    """Return whether every word of a name is one that cameras have; numbers may follow `cam`, `camera` and `view`.

    Example:
        >>> [is_camera_name(name) for name in ("robot0_eye_in_hand", "cam_1", "agentview", "push_left", "0001")]
        [True, True, True, False, False]
    """
    found = words(name)
    named = [word for word in found if not word.isdecimal()]
    numbered = len(named) < len(found)
    if not named or not all(word in CAMERA_WORDS or _CAMERA_PATTERN.fullmatch(word) for word in named):
        return False
    return not numbered or any(word in ("cam", "camera", "view") for word in named)


def split_camera(name: str) -> tuple[str, str] | None:
    """Return a clip's name and the camera at its end; None if it does not end in one.

    Example:
        >>> split_camera("lift_03_front"), split_camera("push_left"), split_camera("front")
        (('lift_03', 'front'), None, None)
    """
    match = re.fullmatch(rf"(.+?)[._\-]((?:{CAMERA_SUFFIX.pattern})(?:[._\-]\d+)?)", name, re.IGNORECASE)
    return None if match is None else (match[1], match[2])


def split_modality(name: str) -> tuple[str, Modality | None]:
    """Return a name without the modality at its start or end, and the modality.

    Example:
        >>> split_modality("clip_depth"), split_modality("rgb-front"), split_modality("color_1")
        (('clip', 'depth'), ('front', 'rgb'), ('color_1', None))
    """
    if name.lower() in MODALITY_WORDS:
        return "", MODALITY_WORDS[name.lower()]
    for pattern in (r"(?P<rest>.+)[._\-](?P<word>rgb|depth)", r"(?P<word>rgb|depth)[._\-](?P<rest>.+)"):
        if match := re.fullmatch(pattern, name, re.IGNORECASE):
            return match["rest"], MODALITY_WORDS[match["word"].lower()]
    return name, None


def group_frames(paths: Iterable[Path]) -> list[FrameGroup]:
    """Return the files of a folder in groups whose names differ in the frame's number alone, each in its order.

    The number is the last word of digits alone, or of digits after `frame` and the like, or else the last digits.

    Example:
        >>> [group] = group_frames(map(Path, ["frame_10.png", "frame_9.png"]))
        >>> group.numbers, [path.name for path in group.paths]
        ((9, 10), ['frame_9.png', 'frame_10.png'])
        >>> groups = group_frames(map(Path, ["0_cam1.png", "1_cam1.png", "mean.png"]))
        >>> [(group.label, group.numbers) for group in groups]
        [('cam1', (0, 1)), ('mean', ())]
    """
    groups: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in paths:
        digits = _frame_digits(path.stem)
        if digits is None:
            groups[path.stem].append((0, path))
        else:
            template = f"{path.stem[: digits.start()]}#{path.stem[digits.end() :]}"
            groups[template].append((int(digits[0]), path))
    return [_group(template, numbered) for template, numbered in sorted(groups.items())]


def _frame_digits(stem: str) -> re.Match[str] | None:
    found = list(_FRAME_NUMBER.finditer(stem)) or list(re.finditer(r"\d+", stem))
    return found[-1] if found else None


def _group(template: str, numbered: list[tuple[int, Path]]) -> FrameGroup:
    ordered = sorted(numbered, key=lambda pair: (pair[0], pair[1].name))
    numbers = tuple(number for number, _ in ordered)
    repeated = next((a for a, b in pairwise(numbers) if a == b), None)
    named = [word for word in _SEPARATORS.split(template) if word and word.lower() not in GENERIC_WORDS]
    label = "_".join(named) if numbered and "#" in template else template
    paths = tuple(path for _, path in ordered)
    return FrameGroup(label, numbers if "#" in template else (), paths, repeated)
