"""Adapters: what a server is sent and what its numbers mean, as data.

In: a YAML file. Out: an `Adapter`, or one sentence that names the mistake.
Read next: `adapters/`, the files; `convert.py`, which follows them.

Every number of an adapter has a source: repository, commit and file. What public code does not tell is not in an
adapter (docs/remote.md lists what is missing, and why).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from baselines.remote.dialects import DialectName
from evalkit.contracts.errors import BadConfig, UnknownName
from evalkit.contracts.spec import EE_POSE_BASE, JOINT_POSITION, OSC_DELTA_BASE, Arm
from evalkit.contracts.types import GRIPPER

FOLDER = Path(__file__).parent / "adapters"

Key = str | tuple[str, ...]
"""A key of the message, or the keys that lead into nested dicts."""

RotationForm = Literal["rotvec_rad", "quat_wxyz", "quat_xyzw", "rot6d_cols", "euler_xyz_rad"]
"""`rot6d_cols`: first column of the matrix, then the second. `euler_xyz_rad`: about the fixed axes x, y, z in turn."""

ROTATION_SIZES: dict[str, int] = {
    "rotvec_rad": 3,
    "quat_wxyz": 4,
    "quat_xyzw": 4,
    "rot6d_cols": 6,
    "euler_xyz_rad": 3,
}

GripperForm = Literal["open_frac", "closed_frac", "plus_opens", "plus_closes", "closes_above_half"]
"""`open_frac`: 1 is open. `closed_frac`: 1 is closed. `plus_opens`, `plus_closes`: from -1 to 1. `closes_above_half`:
from 0 to 1, of which only the side of 0.5 counts."""

Unit = Literal["si", "osc"]
"""Metres and radians; or the units of the layout `osc_delta_base`, 0.05 m and 0.5 rad."""


class _Strict:
    """Base of all parts: unknown names in a file are mistakes."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic reads it from the class


@dataclass(frozen=True, kw_only=True)
class Source(_Strict):
    """Where the facts of an adapter stand."""

    repo: str
    commit: str
    file: str
    tells: str

    def __str__(self) -> str:
        """Return repository, short commit and file."""
        return f"{self.repo} {self.commit[:8] if len(self.commit) == 40 else self.commit}, {self.file}"


@dataclass(frozen=True, kw_only=True)
class EnvNeeds(_Strict):
    """What the env must give; None if any value will do.

    Attributes:
        views: Camera kinds in the env's order.
        cameras: Names of the env's cameras in that order.
        image_hw_px: Height and width of the env's images, before any resizing here.
        arms: Arms that the actions move.
        control_hz: Control rate.
    """

    views: tuple[str, ...]
    arms: tuple[Arm, ...]
    cameras: tuple[str, ...] | None = None
    image_hw_px: tuple[int, int] | None = None
    control_hz: float | None = None


@dataclass(frozen=True, kw_only=True)
class ImageField(_Strict):
    """One image of the message, RGB uint8 with row 0 on top.

    Attributes:
        key: Its key.
        view: Number of the env's view.
        axes: `hwc` or `chw`.
        hw_px: Height and width that the server expects; None for the env's.
        resize: `pad` keeps the ratio and fills with black, as openpi-client's `resize_with_pad`; `stretch` does not
            keep it. Both are Pillow's bilinear filter.
    """

    key: Key
    view: int
    axes: Literal["hwc", "chw"] = "hwc"
    hw_px: tuple[int, int] | None = None
    resize: Literal["none", "pad", "stretch"] = "none"


@dataclass(frozen=True, kw_only=True)
class StatePart(_Strict):
    """Some numbers of a state.

    Attributes:
        part: `position_m`, `rotation` and `gripper` of the end effector, in the frame of the env's states; `joints_rad`
            and `joint_gripper`, the drive targets of the layout `joint_position`; `named`, a state that the env gives
            under a name.
        arm: Which arm; not for `named`.
        form: Form of a rotation or a gripper.
        name: Name of a `named` state.
        size: How many numbers a `named` state has.
    """

    part: Literal["position_m", "rotation", "gripper", "joints_rad", "joint_gripper", "named"]
    arm: Arm = "left"
    form: RotationForm | GripperForm | None = None
    name: str | None = None
    size: int | None = None


@dataclass(frozen=True, kw_only=True)
class StateField(_Strict):
    """One array of the message: the numbers of its parts, one after the other."""

    key: Key
    parts: tuple[StatePart, ...]
    dtype: Literal["float32", "float64"] = "float32"


@dataclass(frozen=True, kw_only=True)
class PromptField(_Strict):
    """The sentence in the message, as text or as a list of one text."""

    key: Key
    form: Literal["text", "list"] = "text"


@dataclass(frozen=True, kw_only=True)
class Constant(_Strict):
    """A value that is the same in every message."""

    key: Key
    value: Any


@dataclass(frozen=True, kw_only=True)
class ActionPart(_Strict):
    """Some columns of the server's actions.

    Attributes:
        part: `translation`: a position or a change of it, 3 columns; `rotation`; `gripper`; `joints_rad`, 6 columns;
            `ignored`: columns that move nothing in the env.
        arm: Which arm.
        form: Form of a rotation or a gripper.
        unit: Unit of `translation` and `rotation`.
        size: How many columns are ignored.
        why: Why they are ignored.
    """

    part: Literal["translation", "rotation", "gripper", "joints_rad", "ignored"]
    arm: Arm = "left"
    form: RotationForm | GripperForm | None = None
    unit: Unit = "si"
    size: int | None = None
    why: str | None = None

    @property
    def num_columns(self) -> int:
        """Return how many columns it has."""
        if self.part == "rotation":
            return ROTATION_SIZES[str(self.form)]
        return {"translation": 3, "gripper": 1, "joints_rad": GRIPPER, "ignored": self.size or 0}[self.part]


@dataclass(frozen=True, kw_only=True)
class ActionField(_Strict):
    """One array of the reply, K rows; `key` is None where the reply is the array itself."""

    key: Key | None
    parts: tuple[ActionPart, ...]

    @property
    def num_columns(self) -> int:
        """Return how many columns it has."""
        return sum(part.num_columns for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Actions(_Strict):
    """The actions of a reply.

    Attributes:
        layout: Action layout of the env that they become; it says whether they are absolute, and in which frame.
        fields: The arrays.
        steps_in_list: Whether the reply is a list of dicts, one for each step, instead of a dict of arrays.
        chunk_len: K, unless the setting says otherwise.
        execute_steps: Actions that are executed before the next request, unless the setting says otherwise.
        space_names: What a server's metadata may call this layout under `action_space`.
    """

    layout: Literal["osc_delta_base", "ee_pose_base", "joint_position"]
    fields: tuple[ActionField, ...]
    chunk_len: int
    execute_steps: int
    steps_in_list: bool = False
    space_names: tuple[str, ...] = ()

    @property
    def num_columns(self) -> int:
        """Return how many columns all arrays have together."""
        return sum(field.num_columns for field in self.fields)


@dataclass(frozen=True, kw_only=True)
class Adapter(_Strict):
    """How one policy behind a server is driven on some benches.

    Attributes:
        policy: Name of the policy, as tables show it.
        benches: Benches on which it acts.
        dialect: The server's dialect.
        server: Which program speaks it.
        sources: Where the facts stand.
        note: What else a reader must know.
        env: What the env must give.
        images: Images of the message.
        states: States of the message.
        prompts: The sentence in the message.
        actions: The reply.
        constants: Values that never change.
        time_axis: Whether images and states have a leading axis of one time step.
        session_key: Key of an id of the episode, random; None if the server takes none.
        seed_key: Key of the seed of a request's noise; None if the server takes none.
        resets: Whether the server gets a message when an episode begins.
        keeps_state: Whether the server remembers an episode's earlier requests, so that one episode runs at a time and
            a lost connection ends it.
        server_normalises: Whether the server normalises states and denormalises actions; no adapter of ours does.
    """

    policy: str
    benches: tuple[str, ...]
    dialect: DialectName
    server: str
    sources: tuple[Source, ...]
    env: EnvNeeds
    images: tuple[ImageField, ...]
    states: tuple[StateField, ...]
    prompts: tuple[PromptField, ...]
    actions: Actions
    note: str = ""
    constants: tuple[Constant, ...] = ()
    time_axis: bool = False
    session_key: str | None = None
    seed_key: str | None = None
    resets: bool = False
    keeps_state: bool = False
    server_normalises: Literal[True] = True
    name: str = ""

    @cached_property
    def sha256(self) -> str:
        """Return the hash of everything that decides messages and actions; sources and notes are not part of it."""
        words = {"name", "note", "sources", "server", "policy"}
        content = {field: value for field, value in asdict(self).items() if field not in words}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def state_names(self) -> tuple[str, ...]:
        """Return the names of the states that the env must give."""
        named = [part.name for state in self.states for part in state.parts if part.part == "named"]
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def resizes(self) -> bool:
        """Return whether any image is resized here."""
        return any(image.resize != "none" for image in self.images)


def names() -> list[str]:
    """Return the names of the adapters that come with evalkit, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Adapter:
    """Return an adapter by name, or by the path of a YAML file.

    Raises:
        UnknownName: If no adapter has this name.
        BadConfig: If the file is not there, or is no adapter.
    """
    is_path = name.endswith((".yaml", ".yml"))
    if not is_path and name not in names():
        raise UnknownName("adapter", name, names(), see="evalkit doctor remote")
    path = Path(name) if is_path else FOLDER / f"{name}.yaml"
    try:
        text = path.read_text()
    except OSError as error:
        raise BadConfig(f"policy.remote.adapter={name} cannot be read: {error.strerror}.") from error
    return parse(text, name=path.stem, where=str(path))


def parse(text: str, *, name: str, where: str) -> Adapter:
    """Return the adapter of a YAML text; raises BadConfig, which names each mistake and where it stands."""
    from pydantic import TypeAdapter, ValidationError

    data = _extended(_mapping(text, where), where)
    try:
        adapter = TypeAdapter(Adapter).validate_python({**data, "name": name})
    except ValidationError as error:
        mistakes = [f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
        raise BadConfig(f"{where} is no adapter: {'; '.join(dict.fromkeys(mistakes))}.") from error
    if mistakes := list(_mistakes(adapter)):
        raise BadConfig(f"{where} is no adapter: {'; '.join(mistakes)}.")
    return adapter


def _mapping(text: str, where: str) -> dict[str, Any]:
    """Return the fields of a YAML text."""
    import yaml

    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadConfig(f"{where} is no YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(data, dict):
        raise BadConfig(f"{where} must hold the fields of an adapter, got {type(data).__name__}.")
    return data


def _extended(data: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the fields of a file that names another adapter under `extends`, with those that it does not give."""
    if (base := data.get("extends")) is None:
        return data
    if base not in names():
        raise BadConfig(f"{where} extends '{base}', which is none of the adapters {', '.join(names())}.")
    path = FOLDER / f"{base}.yaml"
    inherited = _mapping(path.read_text(), str(path))
    if "extends" in inherited:
        raise BadConfig(f"{where} extends '{base}', which extends another adapter; extend {inherited['extends']}.")
    return {**inherited, **{field: value for field, value in data.items() if field != "extends"}}


def _mistakes(adapter: Adapter) -> Iterator[str]:
    """Yield what types cannot say: parts that lack a field, columns that the layout does not have."""
    actions, arms = adapter.actions, adapter.env.arms
    if not adapter.sources:
        yield "sources: at least one is needed"
    for image in adapter.images:
        if not 0 <= image.view < len(adapter.env.views):
            yield f"images: view {image.view} does not exist, the env has {len(adapter.env.views)}"
        if (image.resize == "none") != (image.hw_px is None):
            yield f"images: view {image.view} needs hw_px and resize together"
    for state in adapter.states:
        for state_part in state.parts:
            if state_part.part == "named" and (state_part.name is None or state_part.size is None):
                yield "states: a named state needs name and size"
            yield from _form_mistakes("states", state_part.part, state_part.form)
    parts = [part for field in actions.fields for part in field.parts]
    for part in parts:
        yield from _form_mistakes("actions", part.part, part.form)
        if part.part == "ignored" and (not part.size or not part.why):
            yield "actions: ignored columns need size and why"
        if part.unit == "osc" and (actions.layout != OSC_DELTA_BASE or part.form not in (None, "rotvec_rad")):
            yield "actions: the unit osc is for osc_delta_base, and for rotations as rotvec_rad"
    needed = {
        OSC_DELTA_BASE: {"translation", "rotation", "gripper"},
        EE_POSE_BASE: {"translation", "rotation", "gripper"},
        JOINT_POSITION: {"joints_rad", "gripper"},
    }[actions.layout]
    given = sorted((part.arm, part.part) for part in parts if part.part != "ignored")
    if given != sorted((arm, part) for arm in arms for part in needed):
        yield f"actions: {actions.layout} needs {', '.join(sorted(needed))} of {' and '.join(arms)}, once each"
    if not 1 <= actions.execute_steps <= actions.chunk_len:
        yield f"actions: {actions.execute_steps} of {actions.chunk_len} actions cannot be executed"


def _form_mistakes(where: str, part: str, form: str | None) -> Iterator[str]:
    if part == "rotation" and form not in ROTATION_SIZES:
        yield f"{where}: a rotation needs one of the forms {', '.join(ROTATION_SIZES)}"
    if part == "gripper" and (form is None or form in ROTATION_SIZES):
        yield f"{where}: a gripper needs a form of a gripper"
