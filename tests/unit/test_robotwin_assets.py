"""Hashes of assets: what decides a scene changes them, what a machine writes next to it does not.

In: a folder with a few files. Out: a verdict.
Read next: `envs/robotwin/asset_hashes.py`.
"""

import hashlib
from pathlib import Path

from envs.robotwin.asset_hashes import asset_hashes


def checkout(root: Path) -> Path:
    """Write a task that names one object, the object, and a robot."""
    for name, text in {
        "envs/click_bell.py": 'create_actor(modelname="050_bell")',
        "assets/objects/050_bell/collision/base0.glb": "glTF",
        "assets/objects/050_bell/model_data0.json": "{}",
        "assets/embodiments/aloha-agilex/config.yml": "a: 1",
        "assets/background_texture/unseen/0.png": "png",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_hash_is_that_of_names_and_bytes(tmp_path: Path) -> None:
    hashes = asset_hashes(checkout(tmp_path), "click_bell", randomized=False)
    assert list(hashes) == ["assets of the robot", "assets of 050_bell"]
    lines = "".join(
        f"{hashlib.sha256(text).hexdigest()}  {name}\n"
        for name, text in (("collision/base0.glb", b"glTF"), ("model_data0.json", b"{}"))
    )
    assert hashes["assets of 050_bell"] == hashlib.sha256(lines.encode()).hexdigest()[:16]


def test_only_what_decides_a_scene_changes_a_hash(tmp_path: Path) -> None:
    before = asset_hashes(checkout(tmp_path), "click_bell", randomized=True)
    bell, robot = tmp_path / "assets/objects/050_bell", tmp_path / "assets/embodiments/aloha-agilex"
    (bell / ".DS_Store").write_text("x")
    (bell / "collision/base0.glb.convex.stl").write_text("made by SAPIEN")
    (robot / "curobo_left.yml").write_text("urdf_path: /home/me/a.urdf")
    same = asset_hashes(tmp_path, "click_bell", randomized=True)
    assert same == before
    (bell / "collision/base0.glb").write_text("glTG")
    (tmp_path / "assets/background_texture/unseen/1.png").write_text("png")
    after = asset_hashes(tmp_path, "click_bell", randomized=True)
    assert [name for name in before if after[name] != before[name]] == ["assets of 050_bell", "assets of textures"]


def test_absent_assets_have_no_hash(tmp_path: Path) -> None:
    (checkout(tmp_path) / "envs/click_bell.py").write_text('"051_candlestick"')
    assert asset_hashes(tmp_path, "click_bell", randomized=False)["assets of 051_candlestick"] == "none"
