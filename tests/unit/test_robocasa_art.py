"""Placeholder art on small made-up kitchens: what it adds, what it does not change, and that MuJoCo compiles it.

In: MJCF whose mesh and texture files are not there. Out: checks on the XML and on the compiled model.
Read next: `tests/sim/test_robocasa_env.py`, the same with real kitchens.
"""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from envs.mujoco.recorded import missing_files
from envs.robocasa.art import Shape, stand_in, with_placeholders
from tests.doubles.known import known

KITCHEN = """
<mujoco>
  <compiler angle="radian" inertiagrouprange="0 0"/>
  <asset>
    <texture name="oak" type="2d" file="/art/textures/wood/light_wood_planks.png"/>
    <texture name="skin" type="2d" file="/art/objects/apple_1/visual/image0.png"/>
    <texture name="sky" type="skybox" builtin="flat" rgb1="1 1 1" width="8" height="48"/>
    <material name="oak" texture="oak"/>
    <material name="skin" texture="skin"/>
    <mesh name="door_vis" file="/art/fixtures/door/visuals/door.obj"/>
    <mesh name="apple_vis" file="/art/objects/apple_1/visual/a.obj"/>
    <mesh name="apple_0" file="/art/objects/apple_1/collision/0.obj"/>
    <mesh name="apple_1" file="/art/objects/apple_1/collision/1.obj"/>
    <mesh name="apple_2" file="/art/objects/apple_1/collision/2.obj"/>
    <mesh name="pan_vis" file="/art/objects/pan_0/visual/a.obj"/>
    <mesh name="pan_0" file="/art/objects/pan_0/collision/0.obj"/>
  </asset>
  <worldbody>
    <geom name="floor" type="plane" size="2 2 0.1"/>
    <body name="cab_main" pos="1 0 1">
      <body name="cab_door">
        <joint name="cab_hinge" type="hinge" axis="0 0 1" range="0 1.5"/>
        <geom name="cab_door_g0" type="box" size="0.02 0.3 0.4" group="0" rgba="1 0 0 0"/>
        <geom name="cab_handle" type="capsule" size="0.01 0.1" pos="0.05 0 0" group="0" rgba="1 0 0 0"/>
        <geom name="cab_door_vis" type="mesh" mesh="door_vis" contype="0" conaffinity="0" group="1" material="oak"/>
        <site name="cab_site" pos="0 0 0.1"/>
      </body>
    </body>
    <body name="hood_main" pos="1 0 2">
      <geom name="hood_g0" type="mesh" mesh="door_vis" contype="0" conaffinity="0" group="1" material="oak"/>
    </body>
    <body name="apple_main" pos="0 0 0.5">
      <joint name="apple_joint" type="free"/>
      <geom name="apple_g0" type="mesh" mesh="apple_vis" contype="0" conaffinity="0" group="1" material="skin"/>
      <geom name="apple_g1" type="mesh" mesh="apple_0" group="0" density="100" rgba="0 0 0 0"/>
      <geom name="apple_g2" type="mesh" mesh="apple_1" group="0" density="100" rgba="0 0 0 0"/>
      <geom name="apple_g3" type="mesh" mesh="apple_2" group="0" density="100" rgba="0 0 0 0"/>
    </body>
    <body name="pan_main" pos="0 1 0.5">
      <joint name="pan_joint" type="free"/>
      <body pos="0 -0.05 0">
        <geom name="pan_g0" type="mesh" mesh="pan_vis" contype="0" conaffinity="0" group="1"/>
        <geom name="pan_g1" type="mesh" mesh="pan_0" group="0" density="100" rgba="0 0 0 0"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""

SHAPES = {
    "apple_main": Shape(bottom_m=(0, 0, -0.04), top_m=(0, 0, 0.04), radius_m=(0.04, 0.041), kind="apple"),
    "pan_main": Shape(bottom_m=(0, 0, -0.02), top_m=(0, 0, 0.03), radius_m=(0.1, 0.2), kind="pan"),
}


@pytest.fixture(scope="module")
def filled() -> str:
    return with_placeholders(KITCHEN, SHAPES)


@pytest.fixture(scope="module")
def model(filled: str) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(filled)


def test_names_every_missing_file() -> None:
    missing = missing_files(KITCHEN)
    assert len(missing) == 9
    assert missing == sorted(missing)
    assert missing[0] == "/art/fixtures/door/visuals/door.obj"


def test_the_result_needs_no_file(filled: str) -> None:
    assert missing_files(filled) == []
    assert "/art/" not in filled


def test_names_joints_and_sites_stay(model: mujoco.MjModel) -> None:
    for kind in ("joint", "site", "geom", "body"):
        for name in re.findall(rf'<{kind} name="(\w+)"', KITCHEN):
            getattr(model, kind)(name)
    assert model.joint("cab_hinge").range.tolist() == [0, 1.5]
    np.testing.assert_allclose(model.site("cab_site").pos, [0, 0, 0.1])


def test_textures_take_the_colour_of_their_path(filled: str) -> None:
    texture = ElementTree.fromstring(filled).find("asset/texture[@name='oak']")
    assert known(texture).get("builtin") == "checker", "planks"
    assert known(texture).get("rgb1") == "0.8 0.66 0.47"


def visible(model: Any, body: Any) -> Any:
    return [g for g in range(model.ngeom) if model.geom_bodyid[g] == model.body(body).id and model.geom_rgba[g, 3] > 0]


def test_a_fixture_shows_its_own_collision_shapes(model: mujoco.MjModel) -> None:
    shown = [g for g in visible(model, "cab_door") if model.geom_group[g] == 1]
    assert sorted(model.geom_type[shown]) == [mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_BOX]
    assert not model.geom_contype[shown].any()
    assert {model.mat(model.geom_matid[g]).name for g in shown} == {"oak"}
    np.testing.assert_allclose(model.geom("cab_door_g0").size, [0.02, 0.3, 0.4])


def test_what_is_drawn_weighs_nothing(model: mujoco.MjModel) -> None:
    alone = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><body name="d"><joint/><geom type="box" size="0.02 0.3 0.4"/>'
        '<geom type="capsule" size="0.01 0.1"/></body></worldbody></mujoco>'
    )
    np.testing.assert_allclose(model.body("cab_door").mass, alone.body("d").mass)


def test_a_saved_kitchen_loads_again(model: mujoco.MjModel, filled: str, tmp_path: Path) -> None:
    """MuJoCo saves no range of groups for inertia, and 3.2 refuses the bodies whose geoms then have no mass."""
    compiled = mujoco.MjModel.from_xml_string(filled)
    mujoco.mj_saveLastXML(str(tmp_path / "saved.xml"), compiled)
    saved = mujoco.MjModel.from_xml_path(str(tmp_path / "saved.xml"))
    assert (saved.nq, saved.nv, saved.nbody, saved.ngeom) == (model.nq, model.nv, model.nbody, model.ngeom)
    assert model.body("hood_main").mass == 0
    assert 0 < saved.body("hood_main").mass < 1e-5
    for name in ("apple_main", "pan_main", "cab_door"):
        np.testing.assert_allclose(saved.body(name).mass, model.body(name).mass, atol=1e-5)


def test_an_object_stands_on_its_underside(model: mujoco.MjModel) -> None:
    data = mujoco.MjData(model)
    for _ in range(2000):
        mujoco.mj_step(model, data)
    assert data.body("apple_main").xpos[2] == pytest.approx(0.04, abs=2e-3)
    assert data.body("pan_main").xpos[2] == pytest.approx(0.02, abs=2e-3)
    np.testing.assert_allclose(data.body("pan_main").xpos[:2], [0, 1], atol=0.01)


def test_a_part_inside_an_object_keeps_the_objects_place(model: mujoco.MjModel) -> None:
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    np.testing.assert_allclose(data.geom("pan_g1").xpos[:2], [0, 1], atol=1e-9)


def test_round_long_and_open_things() -> None:
    round_one = stand_in(SHAPES["apple_main"])
    assert [p.type for p in round_one.collision] == ["box", "box"]
    assert [p.type for p in round_one.visual] == ["cylinder"]
    long_one = stand_in(Shape(bottom_m=(0, 0, 0), top_m=(0, 0, 0.2), radius_m=(0.02, 0.05), kind="can"))
    assert [p.type for p in long_one.collision] == ["box"]
    np.testing.assert_allclose(long_one.collision[0].size_m, [0.019, 0.0475, 0.1])
    np.testing.assert_allclose(long_one.collision[0].pos_m, [0, 0, 0.1])
    plate = stand_in(SHAPES["pan_main"])
    assert plate.visual[0].size_m[1] == 0.005
    assert plate.visual[0].pos_m[2] == pytest.approx(-0.015)


def test_nothing_missing_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    xml = f'<mujoco><asset><texture name="a" type="2d" file="{tmp_path}/a.png"/></asset><worldbody/></mujoco>'
    assert ElementTree.canonicalize(with_placeholders(xml, {})) == ElementTree.canonicalize(xml)


def test_an_object_without_measures_is_refused() -> None:
    with pytest.raises(ValueError, match="body 'apple_main' lacks a collision mesh and nothing tells how large it is"):
        with_placeholders(KITCHEN, {"pan_main": SHAPES["pan_main"]})
