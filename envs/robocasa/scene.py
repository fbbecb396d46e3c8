"""Building one seeded RoboCasa episode, without a renderer.

In: a task, a protocol, a seed. Out: RoboCasa's own environment object.
Read next: `env.py`, which steps and observes it; `art.py`, which replaces missing art.

RoboCasa draws from the generator of `seed=`. robosuite up to 1.5.1 draws the robot's first joint angles from numpy's
global generator instead, so this one is seeded just before every build too; robosuite 1.5.2 does not read it. RoboCasa
is made and then reset, as in the published evaluations: the reset draws the kitchen a second time, and that one is the
episode's. From 1.5.2 on the joint angles of the first draw move the second one: other kitchens than with 1.5.1.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from envs.mujoco.recorded import missing_files
from envs.robocasa import art
from envs.robocasa.protocols import OBJECT_SPLIT, Protocol, Start
from envs.robosuite.tasks import CONTROL_HZ


class NoRoboCasa(RuntimeError):
    """RoboCasa cannot be imported here, or is another version."""


def build(task: str, *, protocol: Protocol, placeholder: bool, seed: int) -> Any:
    """Return a RoboCasa environment at the start of the episode of this seed.

    Args:
        task: RoboCasa's name of it.
        protocol: Gives kitchens and settling.
        placeholder: Whether to use stand-ins for missing meshes and textures.
        seed: The episode's.
    """
    from robosuite.controllers import load_composite_controller_config

    scene_class = _scene_class(task, placeholder)
    start = protocol.start(seed)
    _seed_global_generator(start)
    env = scene_class(
        robots="PandaOmron",
        controller_configs=load_composite_controller_config(controller=None, robot="PandaOmron"),
        control_freq=int(CONTROL_HZ),
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        use_object_obs=True,
        ignore_done=True,
        renderer="mujoco",  # the default one opens a window
        seed=start.env_seed,
        layout_and_style_ids=start.scenes,
        obj_instance_split=OBJECT_SPLIT,
        generative_textures=None,
        randomize_cameras=False,
        translucent_robot=False,
    )
    env.reset()
    for _ in range(protocol.settle_steps):
        env.step(np.zeros(env.action_dim))
    return env


JOINT_ANGLES_PER_EPISODE = 14
"""Numbers that robosuite up to 1.5.1 draws from numpy's global generator: 7 joint angles when made, 7 when reset."""


def _seed_global_generator(start: Start) -> None:
    """Put numpy's global generator into the state in which the protocol's evaluation starts the episode."""
    if start.global_seed is None:
        np.random.seed(np.random.SeedSequence(start.env_seed).generate_state(8))  # noqa: NPY002 - robosuite reads it
        return
    np.random.seed(start.global_seed.seed)  # noqa: NPY002
    np.random.randn(JOINT_ANGLES_PER_EPISODE * start.global_seed.earlier_episodes)  # noqa: NPY002


def describe(ep_meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was drawn, as RoboCasa notes it: kitchen, fixtures of the task, objects; JSON values.

    Example:
        >>> apple = {"name": "obj", "info": {"cat": "apple", "mjcf_path": "/objects/objaverse/apple/apple_3/model.xml"}}
        >>> describe({"layout_id": 2, "style_id": 4, "lang": "pick the apple", "object_cfgs": [apple]})
        {'layout': 2, 'style': 4, 'sentence': 'pick the apple', 'fixtures': {}, 'objects': {'obj': 'apple/apple_3'}}
    """
    return {
        "layout": ep_meta.get("layout_id"),
        "style": ep_meta.get("style_id"),
        "sentence": ep_meta.get("lang"),
        "fixtures": dict(ep_meta.get("fixture_refs", {})),
        "objects": {
            str(config["name"]): "/".join(Path(config["info"]["mjcf_path"]).parts[-3:-1])
            for config in ep_meta.get("object_cfgs", [])
        },
    }


@functools.cache
def import_robocasa() -> Any:
    """Import RoboCasa, which writes to the console at import, and return it.

    Raises:
        NoRoboCasa: If it is not there, or is not v0.2.
    """
    advice = "docs/robocasa.md says how to install v0.2 and how to name its interpreter; then `evalkit doctor robocasa`"
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            import robocasa
    except (ImportError, AssertionError) as error:
        raise NoRoboCasa(f"{sys.executable} cannot import RoboCasa ({error}); {advice}") from error
    finally:
        logging.disable(previous)
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    if getattr(robocasa, "__file__", None) is None:
        raise NoRoboCasa(
            f"'robocasa' is the folder {next(iter(robocasa.__path__))} and not the package: run evalkit from a folder "
            f"that does not hold the checkout"
        )
    if not robocasa.__version__.startswith("0.2."):
        raise NoRoboCasa(f"{sys.executable} has RoboCasa {robocasa.__version__}, these 24 tasks are v0.2's; {advice}")
    return robocasa


ART_ADVICE = (
    "download it with `python -m robocasa.scripts.download_kitchen_assets` in RoboCasa's interpreter, or test the "
    "plumbing with bench.robocasa.art=placeholder"
)


def check_art() -> None:
    """Check that there are textures, fixtures and objects; a kitchen is checked file by file when it is built.

    Raises:
        NoRoboCasa: If a whole part of the download is missing.
    """
    assets = Path(import_robocasa().__file__).parent / "models/assets"
    for folder, pattern in (("textures", "*.png"), ("fixtures", "*.obj"), ("objects/objaverse", "*.obj")):
        if next((assets / folder).rglob(pattern), None) is None:
            raise NoRoboCasa(f"RoboCasa's art is not there: {assets / folder} holds no {pattern}; {ART_ADVICE}")


@functools.cache
def _scene_class(task: str, placeholder: bool) -> type:
    """Return RoboCasa's class of a task, with a hook that edits its final MJCF.

    Raises:
        NoRoboCasa: If RoboCasa is not there, or its art is not and no placeholder was asked for.
    """
    import_robocasa()
    from robocasa.environments.kitchen.kitchen import REGISTERED_KITCHEN_ENVS

    base = REGISTERED_KITCHEN_ENVS[task]

    class Scene(base):  # type: ignore[valid-type,misc]
        def edit_model_xml(self, xml_str: str) -> str:
            xml = super().edit_model_xml(xml_str)
            if placeholder:
                return art.with_placeholders(xml, _shapes(self))
            missing = missing_files(xml)
            if missing:
                raise NoRoboCasa(
                    f"RoboCasa's art is not whole: {len(missing)} files of this kitchen are missing, {missing[0]} "
                    f"among them; {ART_ADVICE}"
                )
            return xml

    Scene.__name__ = f"{task}Scene"
    return Scene


def _shapes(env: Any) -> dict[str, art.Shape]:
    """Return the measures of each movable object, from the sites of its description, by the name of its body."""
    shapes = {}
    for config in env.object_cfgs:
        model = env.objects[config["name"]]
        shapes[model.root_body] = art.Shape(
            bottom_m=tuple(model.bottom_offset),
            top_m=tuple(model.top_offset),
            radius_m=tuple(np.abs(_radius(model))),
            kind=Path(config["info"]["mjcf_path"]).parents[1].name,
        )
    return shapes


def _radius(model: Any) -> np.ndarray:
    site = model.worldbody.find(f"./body/site[@name='{model.naming_prefix}horizontal_radius_site']")
    return np.array([float(value) for value in site.get("pos").split()][:2])


def object_box(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return centre and half size of a movable object, in its body's axes, metres."""
    bottom, top = np.asarray(model.bottom_offset), np.asarray(model.top_offset)
    return (bottom + top) / 2, np.array([*np.abs(_radius(model)), (top[2] - bottom[2]) / 2])
