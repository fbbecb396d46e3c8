"""The simulator state that an oracle may read, in the robot base frame.

In: a running RoboCasa environment and what its task publishes. Out: 1-d float64 arrays by key.
Read next: `tasks.py`, which names and explains every key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from envs.robocasa.scene import object_box
from envs.robocasa.tasks import StateItem
from evalkit.contracts import geometry


def read_state(env: Any, items: Sequence[StateItem], T_base_world: np.ndarray) -> dict[str, np.ndarray]:
    """Return every item's values.

    Args:
        env: RoboCasa's environment, kinematics up to date.
        items: What the task publishes.
        T_base_world: 4,4.
    """
    reader = _Reader(env, T_base_world)
    state: dict[str, np.ndarray] = {}
    for item in items:
        values = reader.read(item)
        state.update(zip(item.keys, (np.atleast_1d(np.array(v, np.float64)) for v in values), strict=True))
    return state


class _Reader:
    """One function per kind of item; each returns values in the order of the item's keys."""

    def __init__(self, env: Any, T_base_world: np.ndarray) -> None:
        self._env, self._T_base_world = env, T_base_world
        self._model, self._data = env.sim.model._model, env.sim.data._data

    def read(self, item: StateItem) -> Sequence[Any]:
        kinds: dict[str, Callable[[StateItem], Sequence[Any]]] = {
            "joint": self._joint,
            "geom": self._geom,
            "object": self._object,
            "fixture": lambda item: self._sites_box(getattr(self._env, item.source[0]).get_ext_sites(relative=False)),
            "interior": lambda item: self._sites_box(getattr(self._env, item.source[0]).get_int_sites(relative=False)),
            "site": self._site,
            "open": self._open,
            "on": lambda item: [float(getattr(self._env, item.source[0]).get_state()["turned_on"])],
        }
        return kinds[item.kind](item)

    def _joint(self, item: StateItem) -> Sequence[Any]:
        joint = self._data.joint(self._name(item, self._model.joint))
        return [joint.qpos[0], self._point(joint.xanchor), self._T_base_world[:3, :3] @ joint.xaxis]

    def _geom(self, item: StateItem) -> Sequence[Any]:
        name = self._name(item, self._model.geom)
        geom = self._data.geom(name)
        centre, half = self._model.geom_aabb[self._model.geom(name).id].reshape(2, 3)
        return self._box(geometry.transform(geom.xmat.reshape(3, 3), geom.xpos), centre, half)

    def _object(self, item: StateItem) -> Sequence[Any]:
        model = self._env.objects[item.source[0]]
        body = self._data.body(model.root_body)
        return self._box(geometry.transform(body.xmat.reshape(3, 3), body.xpos), *object_box(model))

    def _site(self, item: StateItem) -> Sequence[Any]:
        return [self._point(self._data.site(self._name(item, self._model.site)).xpos)]

    def _open(self, item: StateItem) -> Sequence[Any]:
        fixture, _, door = item.source[0].partition(".")
        return [getattr(self._env, fixture).get_door_state(env=self._env)[door.partition("_handle")[0]]]

    def _sites_box(self, corners_m: Sequence[np.ndarray]) -> Sequence[Any]:
        """Return the box between a corner and its three neighbours along x, y and z, all in the world."""
        origin, *neighbours = (np.asarray(corner, np.float64) for corner in corners_m[:4])
        edges = np.stack([neighbour - origin for neighbour in neighbours], axis=-1)
        lengths = np.linalg.norm(edges, axis=0)
        T_world_box = geometry.transform(edges / lengths, origin + edges.sum(axis=-1) / 2)
        return self._box(T_world_box, np.zeros(3), lengths / 2)

    def _box(self, T_world_part: np.ndarray, centre_m: np.ndarray, half_m: np.ndarray) -> Sequence[Any]:
        T_base_part = self._T_base_world @ T_world_part
        centre = T_base_part[:3, :3] @ centre_m + T_base_part[:3, 3]
        return [centre, geometry.quat_from_matrix(T_base_part[:3, :3]), half_m]

    def _point(self, p_world_m: np.ndarray) -> np.ndarray:
        return self._T_base_world[:3, :3] @ p_world_m + self._T_base_world[:3, 3]

    def _name(self, item: StateItem, find: Callable[[str], Any]) -> str:
        """Return the first of an item's names that the model has."""
        names = [source.format_map(_Names(self._env)) for source in item.source]
        for name in names:
            try:
                find(name)
            except KeyError:
                continue
            return name
        raise KeyError(f"the kitchen has none of {names}, which '{item.name}' is read from")


class _Names(dict[str, str]):
    """Names of what RoboCasa's task refers to, by attribute: of a fixture its name, of text the text."""

    def __init__(self, env: Any) -> None:
        super().__init__()
        self._env = env

    def __missing__(self, attribute: str) -> str:
        value = getattr(self._env, attribute)
        return value if isinstance(value, str) else str(value.name)
