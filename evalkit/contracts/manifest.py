"""Manifests: which seeds of a bench are evaluated, because its expert solves them, and with which instructions.

In: vettings, or a manifest file. Out: a manifest with one hash, and the file that holds it.
Read next: `evalkit/vet/`, which makes manifests; `env.py`, whose `VettableBench` plans from them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from evalkit.contracts.errors import EvalkitError, UnknownName
from evalkit.contracts.files import write_whole

FORMAT = "evalkit-manifest/1"

DEFAULT_FOLDER = Path("results/manifests")
"""Where `evalkit vet` writes the manifest of a bench, and where runs look for it."""

VERIFIED = "verified_"
"""Begins the names in `TaskVettings.vetted_by` of who tried the seeds of others again, and with what."""


class BadManifest(EvalkitError):
    """A manifest that cannot be read, or two that contradict each other."""


@dataclass(frozen=True, kw_only=True)
class Vetting:
    """The expert's verdict on one seed.

    Attributes:
        seed: Seed of the env.
        accepted: Whether the expert solves the episode, so that it is evaluated.
        reason: Why it is rejected, one short sentence; None if it is accepted.
        instructions: Sentence by split, for example `seen` and `unseen`; empty if the seed is rejected.
        expert_steps: Physics steps that the expert took; None if it is not known.
        first_state_sha256: Hash of the env's first state; None if it is not known.
        first_frame_sha256: Hash of the first RGB-D frame of all views; None if it is not known.
    """

    seed: int
    accepted: bool
    reason: str | None = None
    instructions: Mapping[str, str] = field(default_factory=dict)
    expert_steps: int | None = None
    first_state_sha256: str | None = None
    first_frame_sha256: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no vetting can be.

        Raises:
            ValueError: If a field has the wrong type, or a rejected seed has no reason.
        """
        if type(self.seed) is not int or self.seed < 0:
            raise ValueError(f"seed is {self.seed!r}, not a whole number from 0")
        if type(self.accepted) is not bool:
            raise ValueError(f"accepted is {self.accepted!r}, not true or false")
        if self.accepted != (self.reason is None):
            raise ValueError("a rejected seed needs a reason" if not self.accepted else "an accepted seed has a reason")
        if not _is_text_by_name(self.instructions):
            raise ValueError(f"instructions are {self.instructions!r}, not sentences by split")
        if self.expert_steps is not None and type(self.expert_steps) is not int:
            raise ValueError(f"expert_steps is {self.expert_steps!r}, not a whole number")
        for name in ("reason", "first_state_sha256", "first_frame_sha256"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"{name} is {getattr(self, name)!r}, not text")

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; what is None or empty is left out.

        Example:
            >>> Vetting(seed=7, accepted=False, reason="the plan failed").to_json()
            {'seed': 7, 'accepted': False, 'reason': 'the plan failed'}
        """
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: _plain(value) for name, value in values.items() if value is not None and value != {}}

    @classmethod
    def from_json(cls, values: Any) -> Vetting:
        """Return the vetting that `to_json` wrote.

        Raises:
            ValueError: If it is none.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"{values!r} is no vetting")
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"a vetting has wrong fields ({error})") from error


@dataclass(frozen=True, kw_only=True)
class TaskVettings:
    """All vettings of one task in one setting.

    Attributes:
        setting: Name of the setting.
        task: Name of the task.
        vettings: In seed order, the rejected ones too where they are known.
        max_tries: Seeds that the vetting would have tried at most; None if it is not known.
        vetted_by: Who vetted, and with what: planner, renderer, versions, kind of machine; under names that begin with
            `VERIFIED`, who tried the seeds again, whose scenes the hashes are of. No paths.
    """

    setting: str
    task: str
    vettings: tuple[Vetting, ...]
    max_tries: int | None = None
    vetted_by: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse vettings that are not in seed order.

        Raises:
            ValueError: Names the two seeds, or the field of the wrong type.
        """
        for earlier, later in itertools.pairwise(self.vettings):
            if earlier.seed == later.seed:
                raise ValueError(f"seed {later.seed} is there twice")
            if earlier.seed > later.seed:
                raise ValueError(f"seed {later.seed} comes after seed {earlier.seed}; seeds must ascend")
        if not _is_text_by_name(self.vetted_by):
            raise ValueError(f"vetted_by is {self.vetted_by!r}, not text by name")
        if self.max_tries is not None and type(self.max_tries) is not int:
            raise ValueError(f"max_tries is {self.max_tries!r}, not a whole number")

    @property
    def key(self) -> tuple[str, str]:
        """Return setting and task."""
        return self.setting, self.task

    @property
    def accepted(self) -> tuple[Vetting, ...]:
        """Return the vettings of the seeds that are evaluated, in seed order."""
        return tuple(vetting for vetting in self.vettings if vetting.accepted)

    def extends(self, other: TaskVettings) -> bool:
        """Return whether this is the vetting of `other`, continued to further seeds or the same."""
        same = self.key == other.key and self.vetted_by == other.vetted_by
        return same and self.vettings[: len(other.vettings)] == other.vettings

    def to_json(self) -> dict[str, Any]:
        """Return JSON values without setting and task, which name the entry in the file."""
        limit = {} if self.max_tries is None else {"max_tries": self.max_tries}
        vettings = [vetting.to_json() for vetting in self.vettings]
        return {**limit, "vetted_by": dict(self.vetted_by), "vettings": vettings}

    @classmethod
    def from_json(cls, setting: str, task: str, values: Any) -> TaskVettings:
        """Return the entry that `to_json` wrote.

        Raises:
            ValueError: Names the first field that does not fit.
        """
        known = {"max_tries", "vetted_by", "vettings"}
        if not isinstance(values, Mapping) or not set(values) <= known or not isinstance(values.get("vettings"), list):
            raise ValueError(f"an entry needs a list 'vettings' and may have {', '.join(sorted(known - {'vettings'}))}")
        vettings = tuple(Vetting.from_json(each) for each in values["vettings"])
        return cls(setting=setting, task=task, **{**values, "vettings": vettings})


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The vettings of one bench and protocol; the order in which entries were added makes no difference.

    Attributes:
        bench: Name of the bench.
        protocol: Name of the protocol whose episodes they are, as the bench's `VettableBench` members state it.
        entries: One per setting and task, sorted by name.
    """

    bench: str
    protocol: str
    entries: tuple[TaskVettings, ...] = ()

    def __post_init__(self) -> None:
        """Sort the entries.

        Raises:
            ValueError: If a task is there twice in one setting.
        """
        entries = tuple(sorted(self.entries, key=lambda entry: entry.key))
        for earlier, later in itertools.pairwise(entries):
            if earlier.key == later.key:
                raise ValueError(f"{later.setting}/{later.task} is there twice")
        object.__setattr__(self, "entries", entries)

    @property
    def settings(self) -> tuple[str, ...]:
        """Return the settings that have entries, sorted."""
        return tuple(dict.fromkeys(entry.setting for entry in self.entries))

    def find(self, setting: str, task: str) -> TaskVettings | None:
        """Return the entry of a task in a setting; None if it is not vetted."""
        return next((entry for entry in self.entries if entry.key == (setting, task)), None)

    @property
    def sha256(self) -> str:
        """Return the hash of the content: the same for the same vettings, in whatever order they were added."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def merge(self, other: Manifest) -> Manifest:
        """Return the entries of both; of two vettings of a task, one of which continues the other, the longer one.

        Of two equal ones, that with the larger limit of tries, so that the order makes no difference.

        Raises:
            BadManifest: If both hold different vettings of a task in one setting, or are of two benches or protocols.
        """
        for name in ("bench", "protocol"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise BadManifest(
                    f"One manifest is of the {name} '{ours}', the other of '{theirs}': keep them in two files."
                )
        entries = {entry.key: entry for entry in self.entries}
        for entry in other.entries:
            present = entries.get(entry.key, entry)
            if not (entry.extends(present) or present.extends(entry)):
                raise BadManifest(
                    f"{entry.setting}/{entry.task} has two different vettings ({describe_difference(present, entry)}): "
                    "keep them in two files."
                )
            entries[entry.key] = max(present, entry, key=lambda each: (len(each.vettings), each.max_tries or 0))
        return Manifest(bench=self.bench, protocol=self.protocol, entries=tuple(entries.values()))

    def check_names(self, *, settings: Collection[str], tasks: Collection[str]) -> None:
        """Check that every setting and task is one of the bench's.

        Raises:
            UnknownName: For the first that is not.
        """
        see = f"evalkit list --bench {self.bench}"
        for entry in self.entries:
            if entry.setting not in settings:
                raise UnknownName("setting", entry.setting, settings, see=see)
            if entry.task not in tasks:
                raise UnknownName("task", entry.task, tasks, see=see)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: everything in the file but its own hash."""
        settings: dict[str, dict[str, Any]] = {}
        for entry in self.entries:
            settings.setdefault(entry.setting, {})[entry.task] = entry.to_json()
        return {"format": FORMAT, "bench": self.bench, "protocol": self.protocol, "settings": settings}


def default_path(bench: str) -> Path:
    """Return where the manifest of a bench lies unless a setting names another file."""
    return DEFAULT_FOLDER / f"{bench}.json"


def describe_difference(one: TaskVettings, other: TaskVettings) -> str:
    """Return in what two vettings of a task differ first: with what they were made, or which seed."""
    for name in sorted({*one.vetted_by, *other.vetted_by}):
        if one.vetted_by.get(name) != other.vetted_by.get(name):
            return f"{name}: {one.vetted_by.get(name, 'not stated')} and {other.vetted_by.get(name, 'not stated')}"
    pairs = zip(one.vettings, other.vettings, strict=False)
    seed = next((min(a.seed, b.seed) for a, b in pairs if a != b), None)
    return "none" if seed is None else f"from seed {seed}"


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest with its hash, one vetting a line; the file appears whole, or the one before stays.

    Raises:
        OSError: If it cannot be written.
    """
    write_whole(path, "\n".join(_lines(manifest)) + "\n", durable=True)


def read_manifest(path: Path) -> Manifest:
    """Return the manifest in a file.

    Raises:
        BadManifest: If there is none, it was cut off or changed by hand, or has another format version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise BadManifest(
            f"Cannot read the manifest {path}: {error.strerror or error}. Make one with `evalkit vet`, or name "
            "another file."
        ) from error
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"no whole JSON file ({error})", "Copy it again, or vet again") from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), str):
        raise _bad(path, "no manifest: it states no format", "`evalkit vet --import FILE` reads foreign lists")
    if content["format"] != FORMAT:
        raise _bad(path, f"of format '{content['format']}' instead of '{FORMAT}'", "Use the evalkit that wrote it")
    try:
        manifest = _manifest(content)
    except ValueError as error:
        raise _bad(path, str(error), "Vet again, or take the file as it was") from error
    if content.get("sha256") != manifest.sha256:
        raise _bad(
            path,
            f"its content has the hash {manifest.sha256[:16]}, it states {str(content.get('sha256'))[:16]}: it was "
            "changed after it was written",
            "Take the file as it was, or vet again",
        )
    return manifest


def _manifest(content: Mapping[str, Any]) -> Manifest:
    names = {"format", "bench", "protocol", "sha256", "settings"}
    if set(content) != names:
        raise ValueError(f"it has the fields {', '.join(sorted(content))}; expected {', '.join(sorted(names))}")
    if not isinstance(content["bench"], str) or not isinstance(content["protocol"], str):
        raise ValueError("bench and protocol must be text")
    entries = tuple(_entries(content["settings"]))
    return Manifest(bench=content["bench"], protocol=content["protocol"], entries=entries)


def _entries(settings: Any) -> Iterator[TaskVettings]:
    if not isinstance(settings, dict) or not all(isinstance(tasks, dict) for tasks in settings.values()):
        raise ValueError("'settings' must hold tasks by setting")
    for setting, tasks in settings.items():
        for task, values in tasks.items():
            try:
                yield TaskVettings.from_json(setting, task, values)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{setting}/{task}: {error}") from error


def _lines(manifest: Manifest) -> Iterable[str]:
    """Yield the lines of the file."""
    values = manifest.to_json()
    yield "{"
    for name in ("format", "bench", "protocol"):
        yield f" {json.dumps(name)}: {json.dumps(values[name])},"
    yield f' "sha256": {json.dumps(manifest.sha256)},'
    yield ' "settings": {'
    settings = list(values["settings"].items())
    for setting, tasks in settings:
        yield f"  {json.dumps(setting)}: {{"
        entries = list(tasks.items())
        for task, entry in entries:
            head = {name: value for name, value in entry.items() if name != "vettings"}
            yield f'   {json.dumps(task)}: {{{json.dumps(head)[1:-1]}, "vettings": ['
            yield ",\n".join(f"    {json.dumps(vetting, ensure_ascii=False)}" for vetting in entry["vettings"])
            yield "   ]}" + ("," if task != entries[-1][0] else "")
        yield "  }" + ("," if setting != settings[-1][0] else "")
    yield " }"
    yield "}"


def _bad(path: Path, cause: str, advice: str) -> BadManifest:
    return BadManifest(f"{path} cannot be used: {cause}. {advice}.")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _is_text_by_name(values: Any) -> bool:
    return isinstance(values, Mapping) and all(isinstance(text, str) for pair in values.items() for text in pair)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
