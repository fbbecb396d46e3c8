"""Stand-ins for RoboCasa's art: flat colours for textures, primitive shapes for meshes.

In: the final MJCF of a kitchen, whose texture and mesh files may be missing. Out: MJCF that compiles without them.
Read next: `scene.py`, which calls it; `docs/robocasa.md` for the uses of such a kitchen.

Bodies, joints, sites, names, layouts, language and success checks stay as they are. Images differ, and so do shape
and mass of movable objects: no number from such a kitchen is a RoboCasa score.
"""

from __future__ import annotations

import copy
import hashlib
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from envs.mujoco.recorded import missing_elements

Rgb = tuple[float, float, float]

COLOURS: tuple[tuple[str, Rgb], ...] = (
    ("dark_wood", (0.30, 0.20, 0.12)),
    ("light_wood", (0.80, 0.66, 0.47)),
    ("warm_wood", (0.66, 0.45, 0.27)),
    ("wood", (0.60, 0.43, 0.28)),
    ("marble", (0.86, 0.85, 0.83)),
    ("white", (0.92, 0.92, 0.90)),
    ("black", (0.12, 0.12, 0.12)),
    ("dark_gray", (0.30, 0.30, 0.30)),
    ("light_gray", (0.75, 0.75, 0.75)),
    ("gray", (0.55, 0.55, 0.55)),
    ("green", (0.45, 0.62, 0.45)),
    ("blue", (0.30, 0.40, 0.55)),
    ("brick", (0.62, 0.32, 0.25)),
    ("tile", (0.82, 0.82, 0.80)),
    ("metal", (0.72, 0.73, 0.75)),
    ("brass", (0.72, 0.58, 0.30)),
    ("concrete", (0.60, 0.60, 0.58)),
    ("ceramic", (0.90, 0.89, 0.86)),
)
"""What a word in a file's path says of its colour; the first that occurs counts."""

TILED = ("tile", "parquet", "plank", "brick")

OPEN_KINDS = frozenset(
    {"basket", "bowl", "colander", "cup", "cutting_board", "kettle_non_electric", "pan", "plate", "pot"}
    | {"saucepan", "shallow_bowl", "tray", "tupperware"}
)
"""Objects that hold others: their stand-in is a plate, on which things can lie."""

_THIN_M = 0.005
_FILL_FRAC = 0.95
"""Stand-ins are a little smaller than the space that RoboCasa reserves, so that neighbours do not touch."""

_DOT_KG_PER_M3 = "1000"
"""Density of an invisible dot in place of a visual mesh. A kitchen's inertia leaves visual geoms out
(`inertiagrouprange="0 0"`), but a model that MuJoCo saves states no such range, and a body without any mass is refused
when it is loaded; of a geom with a stated mass it saves 0."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of a movable object, metres, in its body's axes.

    Attributes:
        bottom_m: Middle of its underside.
        top_m: Middle of its top.
        radius_m: Half size along x and y.
        kind: RoboCasa's category, for example `apple`.
    """

    bottom_m: Sequence[float]
    top_m: Sequence[float]
    radius_m: Sequence[float]
    kind: str


class Primitive(NamedTuple):
    """A MuJoCo geom: its type, its sizes and its pose in the body."""

    type: str
    size_m: tuple[float, ...]
    pos_m: tuple[float, float, float]
    quat_wxyz: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)


class StandIn(NamedTuple):
    """The primitives that collide and those that are rendered in place of an object's meshes."""

    collision: list[Primitive]
    visual: list[Primitive]


def with_placeholders(xml: str, shapes: Mapping[str, Shape]) -> str:
    """Return the MJCF with stand-ins for every missing file.

    Args:
        xml: The final MJCF, paths absolute.
        shapes: Measures of the movable objects, by the name of their body.

    Raises:
        ValueError: If a collision mesh is missing whose body has no measures.
    """
    root = ElementTree.fromstring(xml)
    assets = root.find("asset")
    if assets is None:
        return xml
    missing = missing_elements(root)
    for texture in (element for element in missing if element.tag == "texture"):
        _paint(texture)
    meshes = {element.get("name", "") for element in missing if element.tag == "mesh"}
    for element in missing:
        if element.tag == "mesh":
            assets.remove(element)
    for world in root.findall("worldbody"):
        for body in world.findall("body"):
            _fill(body, meshes, shapes, None)
    return ElementTree.tostring(root, encoding="unicode")


def colour(path: str) -> Rgb:
    """Return the colour of a missing file: named by its path, or else derived from it.

    Example:
        >>> colour("/art/textures/wood/dark_wood_planks.png")
        (0.3, 0.2, 0.12)
        >>> colour("apple_1/visual/image0.png") == colour("/anywhere/apple_1/visual/image0.png")
        True
    """
    spoken = path.lower().replace("-", "_")
    for word, rgb in COLOURS:
        if word in spoken:
            return rgb
    drawn = hashlib.sha256("/".join(path.split("/")[-3:]).encode()).digest()
    return 0.25 + 0.6 * drawn[0] / 255, 0.25 + 0.6 * drawn[1] / 255, 0.25 + 0.6 * drawn[2] / 255


def stand_in(shape: Shape) -> StandIn:
    """Return primitives about as large as an object.

    A round one collides as two boxes that cross each other at 45 degrees: MuJoCo 3.2.6 loses contacts of cylinders on
    large slabs.
    """
    half_x_m, half_y_m = (max(float(radius), 0.008) * _FILL_FRAC for radius in shape.radius_m)
    height_m = max(shape.top_m[2] - shape.bottom_m[2], 0.008)
    x_m, y_m = ((shape.top_m[i] + shape.bottom_m[i]) / 2 for i in (0, 1))
    is_open = shape.kind in OPEN_KINDS
    half_z_m = min(height_m / 2, _THIN_M) if is_open else height_m / 2
    centre_m = (x_m, y_m, shape.bottom_m[2] + half_z_m)
    if not is_open and max(half_x_m, half_y_m) > 1.25 * min(half_x_m, half_y_m):
        box = Primitive("box", (half_x_m, half_y_m, half_z_m), centre_m)
        return StandIn([box], [box])
    radius_m = min(half_x_m, half_y_m) if is_open else (half_x_m + half_y_m) / 2
    side_m = 0.75 * radius_m
    eighth = (math.cos(math.pi / 8), 0.0, 0.0, math.sin(math.pi / 8))
    boxes = [Primitive("box", (side_m, side_m, half_z_m), centre_m, quat) for quat in ((1.0, 0.0, 0.0, 0.0), eighth)]
    return StandIn(boxes, [Primitive("cylinder", (radius_m, half_z_m), centre_m)])


def _paint(texture: ElementTree.Element) -> None:
    path = texture.attrib.pop("file")
    rgb = colour(path)
    tiled = texture.get("type", "cube") == "2d" and any(word in path for word in TILED)
    texture.set("builtin", "checker" if tiled else "flat")
    texture.set("rgb1", _numbers(rgb))
    texture.set("rgb2", _numbers([0.9 * value for value in rgb]))
    texture.set("width", "64")
    texture.set("height", "64")


def _fill(body: ElementTree.Element, meshes: set[str], shapes: Mapping[str, Shape], outer: Shape | None) -> None:
    """Put stand-ins for missing meshes into a body and those inside it.

    Args:
        body: Edited in place.
        meshes: Names of the missing ones.
        shapes: Measures of the movable objects, by the name of their body.
        outer: Measures of the object that the body is a part of, in the axes of the body outside it.
    """
    shape = shapes.get(body.get("name", ""), None if outer is None else _moved(outer, body))
    for part in body.findall("body"):
        _fill(part, meshes, shapes, shape)
    geoms = body.findall("geom")
    lacking = [geom for geom in geoms if geom.get("mesh") in meshes]
    if not lacking:
        return
    drawn = [geom for geom in lacking if geom.get("contype") == "0"]
    colliding = [geom for geom in lacking if geom.get("contype") != "0"]
    material = next((geom.get("material") for geom in drawn if geom.get("material")), None)
    if not colliding:
        _draw_collision_shapes(body, geoms, material)
    elif shape is not None:
        _fill_object(body, colliding, shape, material)
    else:
        raise ValueError(f"body '{body.get('name')}' lacks a collision mesh and nothing tells how large it is")
    for geom in drawn:
        _blank(geom)
        del geom.attrib["mass"]
        geom.set("density", _DOT_KG_PER_M3)


def _moved(shape: Shape, body: ElementTree.Element) -> Shape:
    """Return an object's measures in the axes of a body inside it, which some pans have."""
    shift_m = [float(value) for value in body.get("pos", "0 0 0").split()]
    bottom_m, top_m = (
        tuple(value - shift for value, shift in zip(point, shift_m, strict=True))
        for point in (shape.bottom_m, shape.top_m)
    )
    return replace(shape, bottom_m=bottom_m, top_m=top_m)


def _fill_object(
    body: ElementTree.Element, geoms: list[ElementTree.Element], shape: Shape, material: str | None
) -> None:
    """Turn an object's first collision geoms into primitives, blank the others, and add what is drawn.

    Geoms keep their names, because RoboCasa looks contacts up by them.
    """
    collision, visual = stand_in(shape)
    for i, geom in enumerate(geoms):
        if i < len(collision):
            _become(geom, collision[i])
        else:
            _blank(geom)
    for primitive in collision[len(geoms) :]:
        extra = copy.deepcopy(geoms[0])
        extra.attrib.pop("name", None)
        _become(extra, primitive)
        body.append(extra)
    for primitive in visual:
        geom = ElementTree.SubElement(body, "geom", {"group": "1", "contype": "0", "conaffinity": "0", "mass": "0"})
        _become(geom, primitive)
        if material is None:
            geom.set("rgba", f"{_numbers(colour(shape.kind))} 1")
        else:
            geom.set("material", material)


def _draw_collision_shapes(body: ElementTree.Element, geoms: list[ElementTree.Element], material: str | None) -> None:
    """Show a fixture by its own collision primitives."""
    for geom in geoms:
        solid = geom.get("mesh") is None and geom.get("contype") != "0" and geom.get("group") != "1"
        if not solid or geom.get("type") in (None, "plane"):
            continue
        shown = copy.deepcopy(geom)
        for attribute in ("name", "rgba", "density"):
            shown.attrib.pop(attribute, None)
        for attribute, value in (("group", "1"), ("contype", "0"), ("conaffinity", "0"), ("mass", "0")):
            shown.set(attribute, value)
        if material is not None:
            shown.set("material", material)
        body.append(shown)


def _become(geom: ElementTree.Element, primitive: Primitive) -> None:
    for attribute in ("mesh", "euler"):
        geom.attrib.pop(attribute, None)
    geom.set("type", primitive.type)
    geom.set("size", _numbers(primitive.size_m))
    geom.set("pos", _numbers(primitive.pos_m))
    geom.set("quat", _numbers(primitive.quat_wxyz))


def _blank(geom: ElementTree.Element) -> None:
    """Leave a geom its name and nothing else: a massless, invisible dot that touches nothing."""
    for attribute in ("mesh", "material", "quat", "euler", "fitscale", "density"):
        geom.attrib.pop(attribute, None)
    dot = {"type": "sphere", "size": "0.0005", "pos": "0 0 0", "rgba": "0 0 0 0", "mass": "0"}
    for attribute, value in {**dot, "contype": "0", "conaffinity": "0"}.items():
        geom.set(attribute, value)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)
