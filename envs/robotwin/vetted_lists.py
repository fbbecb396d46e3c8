"""The lists of vetted episodes that vla-eval publishes for RoboTwin, as a manifest.

In: `demo_clean.json` and `demo_randomized.json`: files, their folder, or the installed package. Out: a manifest.
Read next: `evalkit/contracts/manifest.py`; `evalkit/vet/`, which merges, verifies and writes.

A list holds the accepted seeds of each task with one sentence of each split, and with what they were vetted. It states
its setting in its name; the fingerprints of published lists tell it too. The seeds between them were tried and
rejected, which the manifest leaves out, because no reason is given. No list holds hashes of scenes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from evalkit.contracts.manifest import BadManifest, Manifest, TaskVettings, Vetting

from .episodes import BENCH
from .protocols import PLANNER, PROTOCOLS

PROTOCOL = PROTOCOLS["xwam"]
"""The protocol that has these seeds and sentences."""

PACKAGE = "vla-eval"
"""Given in the place of a path, it stands for the installed package of this name."""

SETTING_OF_FILE = {"demo_clean.json": "clean", "demo_randomized.json": "randomized"}

PUBLISHED = {
    "clean": """
        491f49 40cf98 c79993 9f78e9 9ad562 da6212 66d11f fddec2 bccc02 295853 d7a15c 22ce32 8a8add 1ae115 52e3c2
        d01cc0 3cd155 ff0bf4 3c30c9 814b48 e2fef4 4c35e9 d4813c 41fbe0 d6efac ec3843 114106 4a9944 0ac044 5e459e
        6ec162 62f62d 2d5798 4478e1 f42499 ce3edc 9083c4 e23ba7 a5dcde d5b389 f9d2ae 8dbb7a 36648c 706f43 9cd1e0
        2c86e9 ade432 857207 e84c58 49cec4
    """,
    "randomized": """
        bf4e04 1ffba5 96e3a7 cfe5af 8f2bc5 7bdf8d 30ad35 2622bd b2e868 6b9130 cfbc7f 1fecd3 b64bc0 6b250f eded7b
        0a74fe c23afe 06e9f1 ea2e5d 925084 5b48ec 6064a9 a8adf8 01d09c a81f93 da9e5f 412700 cc1817 bcbd16 b29d70
        196d34 8e551c bff13e f0b7c0 c66164 86ad32 63a6db b28b9e 557b3f 20229a 4e3320 1a3750 44b889 7e83be 54506f
        2eb8b6 c170b5 b00e44 06ff48 df86e7
    """,
}
"""Per setting, how the fingerprints of the 50 tasks begin in the lists of vla-eval 0.8.0; each is a hash of settings
and task code, so a renamed list is noticed."""

FINGERPRINT_DIGITS = 6
"""Digits of a fingerprint in `PUBLISHED`."""

FOLDER_IN_PACKAGE = Path("benchmarks/robotwin/expert_seeds")
"""Where the package `vla_eval` keeps its lists."""

SOURCE = {
    "by": "vla-eval, a published list, Apache-2.0, github.com/allenai/vla-evaluation-harness",
    "planner": PLANNER,
    "robotwin": PROTOCOL.commit.short,
}
"""What is known of every list and stands in none of them; its sentences are those of this commit only."""

_EPISODE = {"seed": int, "seen": str, "unseen": str}


def read_vetted_list(path: Path) -> Manifest:
    """Return the episodes in one list or several.

    Args:
        path: A list, a folder that holds lists, the folder of the package `vla_eval`, or `vla-eval` for the installed
            package.

    Raises:
        BadManifest: If there is no list, or one is malformed.
    """
    entries = [entry for file in _files(path) for entry in _entries(file)]
    return Manifest(bench=BENCH, protocol=PROTOCOL.seeds, entries=tuple(entries))


def _files(path: Path) -> list[Path]:
    """Return the lists that a path means."""
    if str(path) == PACKAGE and not path.exists():
        path = _installed()
    if not path.exists():
        raise BadManifest(
            f"There is no file {path}: give a list that {PACKAGE} publishes, the folder of its lists, a manifest of "
            f"evalkit, or `{PACKAGE}` for the installed package."
        )
    if not path.is_dir():
        return [path]
    folder = path / FOLDER_IN_PACKAGE if (path / FOLDER_IN_PACKAGE).is_dir() else path
    files = [folder / name for name in SETTING_OF_FILE if (folder / name).is_file()]
    if not files:
        names = " or ".join(SETTING_OF_FILE)
        raise BadManifest(f"{folder} has no list of vetted episodes: expected {names}.")
    return files


def _installed() -> Path:
    try:
        return Path(str(metadata.distribution(PACKAGE).locate_file("vla_eval")))
    except metadata.PackageNotFoundError as error:
        raise BadManifest(
            f"The package '{PACKAGE}' is not installed in this environment. Give the folder 'vla_eval' of the "
            f"environment that has it, or `pip download --no-deps {PACKAGE}`, unpack the wheel and give that folder."
        ) from error


def _entries(path: Path) -> Iterator[TaskVettings]:
    """Yield the entries of one list."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _bad(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"no whole JSON file ({error})") from error
    tasks = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(tasks, dict) or not tasks:
        raise _bad(path, "it has no 'tasks'")
    source, setting = _source(path, content.get("provenance")), _setting(path, tasks)
    for task, values in tasks.items():
        yield _entry(path, setting, task, values, source)


def _setting(path: Path, tasks: Mapping[str, Any]) -> str:
    """Return the setting of a list: what its name says, unless its fingerprints are those of a published list."""
    named = SETTING_OF_FILE.get(path.name)
    stated = {
        str(values.get("fingerprint"))[:FINGERPRINT_DIGITS] for values in tasks.values() if isinstance(values, dict)
    }
    found = [setting for setting, published in PUBLISHED.items() if stated & set(published.split())]
    if len(found) > 1:
        raise _bad(path, f"it mixes episodes of the settings {' and '.join(found)}")
    if found and named not in (None, *found):
        raise _bad(path, f"its name says '{named}', but its fingerprints are those of '{found[0]}': it was renamed")
    setting = found[0] if found else named
    if setting is None:
        raise _bad(path, f"its name must be {' or '.join(SETTING_OF_FILE)}: nothing else states its setting")
    return setting


def _source(path: Path, provenance: Any) -> dict[str, str]:
    """Return with what a list was made; where its parts were made differently, every value that occurs."""
    if not isinstance(provenance, list) or not all(isinstance(part, dict) for part in provenance):
        raise _bad(path, "its 'provenance' is no list of objects")
    names = dict.fromkeys(name for part in provenance for name in part)
    return SOURCE | {
        name: ", ".join(dict.fromkeys(str(part[name]) for part in provenance if name in part)) for name in names
    }


def _entry(path: Path, setting: str, task: str, values: Any, source: Mapping[str, str]) -> TaskVettings:
    episodes = values.get("episodes") if isinstance(values, dict) else None
    if not isinstance(episodes, list) or not episodes or not isinstance(values.get("fingerprint"), str):
        raise _bad(path, f"'{task}' needs a text 'fingerprint' and a list 'episodes'")
    try:
        return TaskVettings(
            setting=setting,
            task=task,
            vettings=tuple(_vetting(episode) for episode in episodes),
            vetted_by={**source, "fingerprint": values["fingerprint"]},
        )
    except ValueError as error:
        raise _bad(path, f"'{task}': {error}") from error


def _vetting(episode: Any) -> Vetting:
    """Return the vetting of one listed episode.

    Raises:
        ValueError: If it has other fields than it should.
    """
    if not isinstance(episode, dict) or set(episode) != set(_EPISODE):
        raise ValueError(f"{episode!r} is no episode with the fields {', '.join(_EPISODE)}")
    for name, kind in _EPISODE.items():
        if type(episode[name]) is not kind or not str(episode[name]).strip():
            raise ValueError(f"{name} is {episode[name]!r} in an episode")
    sentences = {"seen": episode["seen"], "unseen": episode["unseen"]}
    return Vetting(seed=episode["seed"], accepted=True, instructions=sentences)


def _bad(path: Path, cause: str) -> BadManifest:
    return BadManifest(f"{path} is no list of vetted episodes: {cause}. Take the file as {PACKAGE} publishes it.")
