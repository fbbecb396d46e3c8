"""Reads the files under `meta` of a LeRobot data set: its facts, its episodes and its tasks.

In: a folder in LeRobot's format. Out: `info.json`, episodes, tasks by number; what describes no episode, by name.
Read next: `lerobot_format.py` for the paths; `lerobot_read.py`, which reads the rows of an episode.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evalkit.dataset.layout import Broken, DataSetError
from evalkit.dataset.lerobot_format import EPISODES, EPISODES_V2, INFO, TASKS, TASKS_V2, read_json

VERSIONS = ("v2.0", "v2.1", "v3.0")


T = TypeVar("T", dict[str, Any], list[Any])

_JSON_NAMES: dict[type, str] = {dict: "object", list: "array"}


@dataclass(frozen=True, kw_only=True)
class LerobotEpisode:
    """One episode as the metadata describe it.

    Attributes:
        number: Its `episode_index`.
        length: Rows that it should have.
        tasks: Its tasks; labels that are no prompts may be among them.
        row: Its other columns: where its rows and frames are, and our additions `xwam/*`.
    """

    number: int
    length: int
    tasks: tuple[str, ...]
    row: Mapping[str, Any]

    def whole(self, name: str) -> int:
        """Return a column as a whole number.

        Raises:
            ValueError: If it is missing, or not a whole number.
        """
        return whole_number(self.row.get(name), name)

    def seconds(self, name: str) -> float:
        """Return a column as seconds.

        Raises:
            ValueError: If it is missing, or not a finite number.
        """
        value = self.row.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"its '{name}' in meta/episodes must be a number of seconds, got {value!r:.40}")
        return float(value)

    def addition(self, name: str, kind: type[T]) -> T:
        """Return the JSON value of one of our additions, `xwam/NAME`; an empty one if there is none.

        Raises:
            ValueError: If it is no JSON, or a value of another type.
        """
        stated = self.row.get(f"xwam/{name}")
        try:
            value = json.loads(stated or json.dumps(kind()))
        except (TypeError, ValueError):
            value = stated
        if not isinstance(value, kind):
            raise ValueError(
                f"its 'xwam/{name}' in meta/episodes must be a JSON {_JSON_NAMES[kind]}, got {value!r:.80}"
            )
        return value


def whole_number(value: Any, name: str) -> int:
    """Return a number that may be stored as a float.

    Raises:
        ValueError: If it is not a whole number.

    Example:
        >>> whole_number(3.0, "file_index")
        3
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or value != value // 1:
        raise ValueError(f"'{name}' must be a whole number, got {value!r:.40}")
    return int(value)


def filled(name: str, template: str, **values: Any) -> str:
    """Return a path from a template of `info.json`.

    Raises:
        ValueError: If the template has a field that no value fills.

    Example:
        >>> filled("data_path", "data/chunk-{chunk_index:03d}.parquet", chunk_index=12)
        'data/chunk-012.parquet'
    """
    try:
        return template.format(**values)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"'{name}' in {INFO} is '{template}'; it may use {', '.join(sorted(values))} only") from error


def read_info(root: Path) -> dict[str, Any]:
    """Return `meta/info.json`.

    Raises:
        DataSetError: If it is missing, of an unknown version, or not LeRobot's.
    """
    path = root / INFO
    if not path.is_file():
        raise DataSetError(f"{root} is not a LeRobot data set: it holds no {INFO}.")
    info = read_json(path)
    required = {"codebase_version", "fps", "features", "data_path"}
    if not isinstance(info, dict) or (missing := required - set(info)):
        lacks = ", ".join(sorted(missing)) if isinstance(info, dict) else "everything"
        raise DataSetError(f"{path} is not LeRobot's: it lacks {lacks}.")
    if info["codebase_version"] not in VERSIONS:
        raise DataSetError(f"{root} is of version {info['codebase_version']}; {', '.join(VERSIONS)} can be read.")
    fps = info["fps"]
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not math.isfinite(fps) or fps <= 0:
        raise DataSetError(f"{path}: 'fps' must be a number above 0, got {fps!r:.40}.")
    if not isinstance(info["features"], dict) or not isinstance(info["data_path"], str):
        raise DataSetError(f"{path}: 'features' must be an object and 'data_path' a text.")
    for name in ("data_path", "video_path"):
        template = info.get(name)
        if isinstance(template, str) and (template.startswith("/") or ".." in Path(template).parts):
            raise DataSetError(f"{path}: '{name}' must be a path inside the data set, got '{template:.80}'.")
    return info


def _v2_rows(root: Path) -> Iterator[tuple[str, Any]]:
    """Yield the lines of `meta/episodes.jsonl`: where each is, and its content (a text if it is not JSON)."""
    path = root / EPISODES_V2
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON texts may hold other line breaks
    except (OSError, ValueError) as error:
        raise DataSetError(f"{path} cannot be read: {error}.") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except ValueError as error:
                yield f"{path}:{number}", str(error)


def _v3_rows(root: Path) -> Iterator[tuple[str, Any]]:
    """Yield the rows of `meta/episodes/*/*.parquet`, whose files may have different columns."""
    files = sorted((root / EPISODES).glob("*/*.parquet"))
    if not files:
        raise DataSetError(f"{root / EPISODES}/*/*.parquet, which lists the episodes, does not exist.")
    for file in files:
        try:
            names = [name for name in pq.read_schema(file).names if not name.startswith("stats/")]
            rows = pq.read_table(file, columns=names).to_pylist()
        except (OSError, pa.ArrowException) as error:
            yield str(file), one_line(error)
            continue
        yield from ((f"{file}, row {number}", row) for number, row in enumerate(rows))


def read_episodes(root: Path, *, is_v2: bool) -> tuple[list[LerobotEpisode], list[Broken]]:
    """Return the episodes that the metadata list, and the rows that describe none.

    Raises:
        DataSetError: If there are no metadata of episodes, or they describe no episode at all.
    """
    listed = _v2_rows(root) if is_v2 else _v3_rows(root)
    episodes, broken = dict[int, LerobotEpisode](), list[Broken]()
    for where, row in listed:
        try:
            episode = _episode(row)
            if episode.number in episodes:
                raise ValueError(f"episode {episode.number} is listed a second time")
            episodes[episode.number] = episode
        except ValueError as error:
            broken.append(Broken(where, f"{where}: {error}"))
    if not episodes:
        reason = f": {broken[0].reason}" if broken else "."
        raise DataSetError(f"{root / EPISODES}* lists no episode with episode_index, length and tasks{reason}")
    return [episodes[number] for number in sorted(episodes)], broken


def _episode(row: Any) -> LerobotEpisode:
    if not isinstance(row, Mapping):
        raise ValueError(f"it does not describe an episode: {row}")
    if missing := [name for name in ("episode_index", "length") if row.get(name) is None]:
        raise ValueError(f"it lacks {' and '.join(missing)}")
    number, length = (whole_number(row[name], name) for name in ("episode_index", "length"))
    if number < 0 or length < 1:
        raise ValueError(f"episode {number} has the length {length}; numbers begin at 0, lengths at 1")
    tasks = row.get("tasks")
    tasks = [tasks] if isinstance(tasks, str) else tasks or []
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise ValueError(f"the tasks of episode {number} must be texts, got {tasks!r:.80}")
    return LerobotEpisode(number=number, length=length, tasks=tuple(tasks), row=row)


def read_tasks(root: Path) -> dict[int, Any]:
    """Return the tasks by their number, texts unless an edit broke them; none if there is no table of tasks.

    Raises:
        DataSetError: If the table cannot be read, or gives one number to two tasks.
    """
    path = next((root / name for name in (TASKS, TASKS_V2) if (root / name).is_file()), None)
    if path is None:
        return {}
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            pairs = list(zip(table["task_index"].to_pylist(), table[_task_column(table)].to_pylist(), strict=True))
        else:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
            pairs = [(line["task_index"], line.get("task")) for line in lines]
        tasks = {whole_number(number, "task_index"): task for number, task in pairs}
    except (OSError, ValueError, KeyError, IndexError, TypeError, pa.ArrowException) as error:
        raise DataSetError(f"{path}, the table of tasks, cannot be read: {one_line(error)}.") from error
    if len(tasks) != len(pairs):
        raise DataSetError(f"{path} gives one task_index to two tasks.")
    return tasks


def _task_column(table: pa.Table) -> str:
    """Return the column with the texts of tasks: `task`, the index that pandas wrote, or the only column of texts.

    Raises:
        ValueError: If no column, or more than one, may hold them.
    """
    texts = [name for name in table.column_names if name != "task_index" and is_text(table[name].type)]
    index = (table.schema.pandas_metadata or {}).get("index_columns", [])
    for name in ("task", *(one for one in index if isinstance(one, str)), "__index_level_0__"):
        if name in texts:
            return name
    if len(texts) != 1:
        raise ValueError(f"its columns of texts are {', '.join(texts) or 'none'}; call the one with the tasks 'task'")
    return texts[0]


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column holds texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def one_line(error: BaseException) -> str:
    """Return the first line of an error's text; Arrow's errors have up to a dozen."""
    text = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
    return text.splitlines()[0].rstrip(". ") if text.strip() else type(error).__name__
