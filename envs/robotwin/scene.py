"""Building seeded scenes of one task of RoboTwin.

In: a checkout, a task, a setting, seeds. Out: RoboTwin's own object of the task, at the start of an episode.
Read next: `env.py`, which acts and observes in a scene; `rendering.py`, how it is rendered; `state.py`, what is in it.

A scene depends on its seed alone. RoboTwin seeds numpy's global generator; here, Python's generator is seeded too, the
arguments are fresh copies, and lists that RoboTwin keeps between episodes are restored: its clutter would lie 0.3 m
further to the side with each episode of dump_bin_bigbin and put_bottles_dustbin. SAPIEN drops its compiled shaders
with its last scene, so the next scene is built before the last one goes: 0.02 s instead of 6 s.
"""

from __future__ import annotations

import copy
import gc
import inspect
import random
from collections.abc import Mapping
from typing import Any

from .checkout import Checkout
from .dry import DryScene
from .missing_files import FileWatch
from .rendering import OnDemand, Rendering


class Scenes:
    """The scenes of one task; there is one object per process.

    Attributes:
        current: RoboTwin's object of the task, at or after the start of the last seed's episode; None before the first.

    Args:
        checkout: Where RoboTwin lies; its root is the working directory.
        task: Name of the task.
        setting: `clean` or `randomized`.
        rendering: How scenes are rendered.

    Raises:
        EvalkitError: If RoboTwin cannot be imported.
        MissingAssets: If it reads a file at import that is not there.
    """

    def __init__(self, checkout: Checkout, *, task: str, setting: str, rendering: Rendering) -> None:
        self.current: Any = None
        bases = (OnDemand, DryScene, checkout.task_class(task))
        self._arguments = checkout.setup_arguments(task, setting)
        self._class = type(task, bases, {"rendering": rendering})
        self._defaults = _mutable_defaults(self._class)
        self._watch = FileWatch(checkout)

    def build(self, seed: int) -> Any:
        """Build the scene of a seed, make it the current one and return it.

        Raises:
            MissingAssets: If it needs a file that is not there.
            UnStableError: RoboTwin's: its objects do not come to rest; such a seed has no episode.
        """
        self._restore_defaults()
        random.seed(seed)
        scene = self._class()
        with self._watch.building():
            scene.setup_demo(now_ep_num=0, seed=seed, **copy.deepcopy(self._arguments))
        self.current = scene  # the last scene goes only now
        gc.collect()
        return scene

    def close(self) -> None:
        """Let the current scene go, and leave RoboTwin's classes as they were; calling it twice is fine."""
        self.current = None
        self._restore_defaults()
        gc.collect()

    def _restore_defaults(self) -> None:
        for function, defaults in self._defaults.items():
            function.__defaults__ = copy.deepcopy(defaults)


def _mutable_defaults(scene_class: type) -> dict[Any, tuple[Any, ...]]:
    """Return the default values of every method that has a list or dict among them, as they are before any call."""
    functions = {member for base in scene_class.__mro__ for member in vars(base).values() if inspect.isfunction(member)}
    return {
        function: copy.deepcopy(function.__defaults__ or ())
        for function in functions
        if any(isinstance(value, (list, dict)) for value in function.__defaults__ or ())
    }


def describe(scene: Any, info: Mapping[str, str]) -> dict[str, Any]:
    """Return what the seed drew, for readers, as JSON values; lengths in metres."""
    actors = sorted(scene.scene.get_all_actors(), key=lambda actor: str(actor.get_name()))
    return {
        "objects": [
            {"name": actor.get_name(), "position_m": [round(float(x), 4) for x in actor.get_pose().p]}
            for actor in actors
            if actor.get_name()
        ],
        "articulations": sorted(each.get_name() for each in scene.scene.get_all_articulations()),
        "info": dict(info),
        "table_z_bias_m": float(scene.table_z_bias),
        "wall_texture": scene.wall_texture,
        "table_texture": scene.table_texture,
        "lights": [[float(value) for value in light.get_color()] for light in scene.point_light_lst],
        "clutter": [f"{each['object_type']}/{each['object_index']}" for each in scene.record_cluttered_objects],
    }
