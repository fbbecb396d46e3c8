"""Which instructions RoboTwin can give in a scene: its templates, filled in with the scene's objects and arms.

In: the folder `description` of a checkout, a task, the scene's info. Out: a sentence, or whether one can be said.
Read next: `expert.py`, which reads the info of a scene; `env.py`, which refuses a sentence that cannot be said.

A template holds placeholders: `{A}` stands for an object, `{a}` for an arm. The info gives each a value: the name of a
description file (`050_bell/base0`), a phrase (`red block`), or an arm (`left`). The task's file has templates of two
splits, `seen` and `unseen`; a description file has phrases of the same splits.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evalkit.contracts.errors import EvalkitError, MissingAssets

Split = Literal["seen", "unseen"]
SPLITS: tuple[Split, ...] = ("seen", "unseen")
"""RoboTwin's two sets of instruction templates for each task."""

_PLACEHOLDER = re.compile(r"\{([^}]+)\}")


@dataclass(frozen=True)
class Instructions:
    """The instructions of one task.

    Attributes:
        task: Name of the task.
        templates: Sentences with placeholders by split, as the task's file has them.
        objects: Folder of the description files.
    """

    task: str
    templates: Mapping[str, Sequence[str]]
    objects: Path

    @classmethod
    def read(cls, description: Path, task: str) -> Instructions:
        """Return the instructions of a task from the folder `description` of a checkout.

        Raises:
            MissingAssets: If the task has no file.
            EvalkitError: If its file is broken.
        """
        path = description / "task_instruction" / f"{task}.json"
        return cls(task, _texts_by_split(path, description.parent), description / "objects_description")

    def can_be_said(self, sentence: str, info: Mapping[str, Any], split: str) -> bool:
        """Return whether RoboTwin can draw a sentence in a scene; the sentences are matched, not listed.

        Args:
            sentence: Compared letter by letter.
            info: Values by placeholder, for example `{"{A}": "050_bell/base0", "{a}": "left"}`.
            split: `seen` or `unseen`; no other split gives any sentence.

        Raises:
            MissingAssets: If a description file of an object is not there.
        """
        if split not in SPLITS:
            return False
        phrases = self._phrases(info, split)
        return any(_pattern(template, phrases).fullmatch(sentence) for template in self._usable(info, split))

    def draw(self, info: Mapping[str, Any], split: str, *, setting: str, seed: int) -> str:
        """Return the instruction of an episode, the same one in every process and on every machine.

        Like RoboTwin's generator, which does not seed its draw, every usable template has the same chance, and so has
        every phrase of an object.

        Args:
            info: As for `can_be_said`.
            split: `seen` or `unseen`.
            setting: Name of the episode's setting.
            seed: Seed of the episode.

        Raises:
            MissingAssets: If a description file of an object is not there.
            ValueError: If no template fits the info.
        """
        usable = self._usable(info, split)
        if not usable:
            names = ", ".join(sorted(map(str, info))) or "none"
            raise ValueError(f"no template of '{self.task}' ({split}) has the scene's placeholders ({names})")
        episode = f"{self.task}/{setting}/{seed}/{split}"
        phrases = {
            name: choices[_index(f"{episode}/{name}", len(choices))]
            for name, choices in self._phrases(info, split).items()
        }
        template = usable[_index(episode, len(usable))]
        return _PLACEHOLDER.sub(lambda match: phrases[match[1]], template)

    def _usable(self, info: Mapping[str, Any], split: str) -> list[str]:
        """Return the templates that name every object of the scene, and either every arm or none."""
        names = {_name(key) for key in info}
        objects = {name for name in names if not _is_arm(name)}
        return [
            template for template in self.templates[split] if set(_PLACEHOLDER.findall(template)) in (names, objects)
        ]

    def _phrases(self, info: Mapping[str, Any], split: str) -> dict[str, list[str]]:
        """Return what can stand in the place of each placeholder."""
        return {_name(key): self._phrases_of(_name(key), str(value), split) for key, value in info.items()}

    def _phrases_of(self, name: str, value: str, split: str) -> list[str]:
        path = self.objects / f"{value}.json"
        if "/" in value or "\\" in value or path.is_file():
            phrases = _texts_by_split(path, self.objects.parents[1])
            return [f"the {phrase}" for phrase in phrases[split] or phrases["seen"]]
        return [f"the {value} arm" if _is_arm(name) else value]


def _texts_by_split(path: Path, root: Path) -> dict[str, list[str]]:
    """Return the texts of both splits in a file.

    Raises:
        MissingAssets: If there is no such file; it is named relative to the checkout's root.
        EvalkitError: If it is broken, or has no seen texts.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        named = path.relative_to(root) if path.is_relative_to(root) else path
        raise MissingAssets(named, advice="It belongs to RoboTwin's own repository: check it out again.") from error
    except (OSError, ValueError) as error:
        raise EvalkitError(f"Cannot read {path}: {error}. Check out RoboTwin's folder 'description' again.") from error
    texts: dict[str, list[str]] = (
        {split: content.get(split, []) for split in SPLITS} if isinstance(content, dict) else {}
    )
    lists = [each for each in texts.values() if isinstance(each, list) and all(isinstance(text, str) for text in each)]
    if len(lists) != len(SPLITS) or not texts["seen"]:
        raise EvalkitError(f"{path} has no list of texts 'seen'. Check out RoboTwin's folder 'description' again.")
    return texts


def _pattern(template: str, phrases: Mapping[str, Sequence[str]]) -> re.Pattern[str]:
    """Return the expression of all sentences of a template; a placeholder stands for one phrase wherever it occurs."""
    parts: list[str] = []
    groups: dict[str, str] = {}
    for number, part in enumerate(_PLACEHOLDER.split(template)):
        if number % 2 == 0:
            parts.append(re.escape(part))
        elif part in groups:
            parts.append(f"(?P={groups[part]})")
        else:
            groups[part] = f"p{number}"
            parts.append(f"(?P<p{number}>{'|'.join(re.escape(phrase) for phrase in phrases[part])})")
    return re.compile("".join(parts))


def _name(key: str) -> str:
    """Return the letter of a placeholder."""
    return str(key).strip("{}")


def _is_arm(name: str) -> bool:
    return len(name) == 1 and "a" <= name <= "z"


def _index(what: str, count: int) -> int:
    """Return a number below `count` that depends on a text only."""
    return int(hashlib.sha256(what.encode()).hexdigest(), 16) % count
