"""The RoboTwin bench as a plan sees it: episodes of a manifest, departures, launches; on a double of the checkout.

In: a double of RoboTwin's checkout, made-up manifests. Out: checks of plans, sentences and env processes.
Read next: `test_robotwin_doctor.py`, what an installation lacks; `tests/doubles/robotwin_checkout.py`, the double.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.robotwin import bench as bench_module
from envs.robotwin.bench import PYTHON_VARIABLE, ROOT_VARIABLE, RobotwinBench, RobotwinConfig
from envs.robotwin.protocols import PROTOCOLS
from envs.robotwin.source import C3DDFA8, CF47AB5
from envs.robotwin.tasks import EXPERT_KEY, SETTINGS, STEP_LIMITS
from evalkit.api import load_bench
from evalkit.config import load_config
from evalkit.contracts import plugins
from evalkit.contracts.env import VettableBench, WorkerLaunch
from evalkit.contracts.errors import BadConfig, EvalkitError, SpecMismatch, UnknownName
from evalkit.contracts.manifest import BadManifest, Manifest, TaskVettings, Vetting, write_manifest
from evalkit.contracts.spec import JOINT_POSITION
from evalkit.contracts.worker.client import EnvWorker
from evalkit.report.published import SUCCESS, PublishedRow, select_published
from evalkit.store.plan import make_plan
from evalkit.vet.run import vetted_by
from tests.doubles.robotwin_checkout import NUM_EPISODES, double_manifest, write_checkout, write_double_manifest

BENCH = RobotwinBench()
CONFIG = RobotwinConfig()


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A double of the checkout at the protocol's commit, and a folder with a manifest in which runs start."""
    folder = tmp_path_factory.mktemp("robotwin")
    write_checkout(folder / "RoboTwin")
    write_checkout(folder / "head", CF47AB5)
    write_double_manifest(folder)
    return folder


@pytest.fixture(autouse=True)
def _here(double: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The double is the named checkout, whatever this machine has, and no interpreter has RoboTwin's packages."""
    monkeypatch.setenv(ROOT_VARIABLE, str(double / "RoboTwin"))
    monkeypatch.setenv(PYTHON_VARIABLE, "/nowhere/python")
    monkeypatch.chdir(double)


def plan(*overrides: str, episodes: int = 2, **changes: Any) -> Any:
    config = load_config(BENCH, plugins.load_policy("hold"), list(overrides))
    arguments = {"tasks": ["click_bell"], "setting": None, "num_episodes": episodes, "seed": 0} | changes
    return make_plan(config.bench, config.policy, max_steps=config.max_steps, **arguments)


def departures(**settings: Any) -> list[str]:
    """Return the departures of settings but for those of the double: its content, and SAPIEN's unknown version."""
    of_double = BENCH.departures(CONFIG)
    return [sentence for sentence in BENCH.departures(replace(CONFIG, **settings)) if sentence not in of_double]


def test_episodes_are_the_manifests_accepted_ones_in_order() -> None:
    made = plan(episodes=3)
    assert [episode.seed for episode in made.episodes] == [100_001, 100_003, 100_005]
    assert [episode.instruction for episode in made.episodes] == [f"unseen click_bell clean {i}" for i in range(3)]
    assert {episode.max_steps for episode in made.episodes} == {400}
    assert [episode.noise_key for episode in made.episodes] == ["0_0", "0_1", "0_2"]
    assert {episode.protocol for episode in made.episodes} == {"robotwin-50/xwam"}


def test_every_task_is_planned_in_both_settings() -> None:
    for setting in SETTINGS:
        made = plan(tasks=[], setting=setting, episodes=NUM_EPISODES)
        assert made.tasks == tuple(STEP_LIMITS)
        assert len(made.episodes) == 50 * NUM_EPISODES
        assert all(episode.instruction for episode in made.episodes)
        assert {episode.task: episode.max_steps for episode in made.episodes} == STEP_LIMITS


def test_the_protocol_decides_the_split_of_the_instructions(double: Path) -> None:
    def split(setting: str, *overrides: str) -> str:
        return str(plan(*overrides, setting=setting).episodes[0].instruction).split()[0]

    assert {split(setting) for setting in SETTINGS} == {"unseen"}
    assert split("clean", "bench.robotwin.instructions=seen") == "seen"
    write_manifest(double / "results/manifests/robotwin-head.json", double_manifest("robotwin-50-head"))
    head = ("bench.robotwin.protocol=head", "bench.robotwin.root=head")
    assert (split("clean", *head), split("randomized", *head)) == ("seen", "unseen")


def test_plans_hold_the_first_states_of_the_manifest(double: Path) -> None:
    vetting = Vetting(seed=100_000, accepted=True, instructions={"unseen": "ring"}, first_state_sha256="ab" * 32)
    entry = TaskVettings(setting="clean", task="click_bell", vettings=(vetting,), vetted_by={"by": "me"})
    write_manifest(double / "own.json", Manifest(bench="robotwin", protocol="robotwin-50", entries=(entry,)))
    made = plan("bench.robotwin.manifest=own.json", episodes=1)
    assert made.episodes[0].first_state_sha256 == "ab" * 32
    assert plan().episodes[0].first_state_sha256 is None


def test_a_plan_does_not_depend_on_where_things_lie(double: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan().sha256
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable + "-elsewhere")
    monkeypatch.setenv(ROOT_VARIABLE, str(write_checkout(double / "another place")))
    assert plan().sha256 == before
    provenance = plan().bench.provenance
    assert provenance["robotwin"].startswith("c3ddfa8, changed: ")
    assert provenance["manifest"].endswith(", vetted by evalkit 0.0, a double (planner curobo)")
    write_manifest(double / "copy.json", double_manifest())
    monkeypatch.setenv(PYTHON_VARIABLE, "/nowhere/python")
    named = [f"bench.robotwin.{n}={v}" for n, v in (("manifest", "copy.json"), ("root", "RoboTwin"), ("python", "no"))]
    assert plan(*named).sha256 == before
    assert not {"root", "python", "manifest"} & set(plan(*named).bench.config)


def test_only_the_planned_episodes_vettings_identify_a_plan(double: Path) -> None:
    def of(name: str, manifest: Manifest) -> Any:
        write_manifest(double / name, manifest)
        return plan(f"bench.robotwin.manifest={name}")

    whole = double_manifest()
    bell = next(entry for entry in whole.entries if entry.key == ("clean", "click_bell"))
    alone = replace(whole, entries=(replace(bell, vettings=bell.vettings[:4], max_tries=7),))
    others = replace(whole, entries=(bell, *double_manifest(planner="cpu").entries[:3]))
    before = of("whole.json", whole)
    assert of("alone.json", alone).sha256 == of("others.json", others).sha256 == before.sha256
    assert of("cpu.json", double_manifest(planner="cpu")).bench.provenance != before.bench.provenance
    vettings = (bell.vettings[0], replace(bell.vettings[1], expert_steps=301), *bell.vettings[2:])
    other = of("steps.json", replace(whole, entries=(replace(bell, vettings=vettings),)))
    assert other.bench.provenance["manifest"] != before.bench.provenance["manifest"]


def test_vetting_reads_no_default_manifest(double: Path) -> None:
    """The default manifest is of another protocol, or vetted with something else: a vetting does not ask it."""
    head = replace(CONFIG, protocol="head", root=str(double / "head"), planner="cpu")
    default = double / "results/manifests/robotwin-head.json"
    default.write_text("{}")
    try:
        bound = load_bench("robotwin", **{name: getattr(head, name) for name in ("protocol", "root", "planner")})
        assert not [sentence for sentence in bound.departures() if "vetted" in sentence]
        assert "manifest" not in vetted_by(bound, {})
    finally:
        default.unlink()
    assert BENCH.manifest_path(CONFIG) == BENCH.manifest_path(replace(CONFIG, protocol="qpos"))
    assert BENCH.manifest_path(CONFIG) == Path("results/manifests/robotwin.json")
    assert BENCH.manifest_path(head) == Path("results/manifests/robotwin-head.json")
    assert BENCH.manifest_path(replace(head, manifest="own.json")) == Path("own.json")


def test_expert_replay_names_the_setting_it_needs() -> None:
    config = load_config(BENCH, plugins.load_policy("expert_replay"), [])
    with pytest.raises(SpecMismatch, match=r"reads \['expert_ee_world'\].*; add bench\.robotwin\.expert=true\.$"):
        make_plan(config.bench, config.policy, tasks=["click_bell"], num_episodes=1)


def test_stand_ins_are_another_protocol_and_say_so() -> None:
    made = plan("bench.robotwin.planner=cpu", "bench.robotwin.renderer=raster")
    assert made.protocol == "robotwin-50/xwam+cpu-planner+raster"
    assert sum("this is no RoboTwin score" in sentence for sentence in made.departures) == 2


@pytest.mark.parametrize(
    ("override", "mark"),
    [
        ("shadows=off", "+no-shadows"),
        ("decimate=background", "+no-background"),
        ("instructions=seen", "+seen-instructions"),
        ("expert=true", "+expert"),
        ("instructions=unseen", ""),
    ],
)
def test_what_is_no_score_marks_the_protocol(override: str, mark: str) -> None:
    """No published number stands next to a marked run."""
    row = PublishedRow(
        source="",
        system="A",
        bench="robotwin-50",
        setting="clean",
        task="",
        metric=SUCCESS,
        value=50.0,
        note="",
    )
    protocol = plan(f"bench.robotwin.{override}").protocol
    assert protocol == f"robotwin-50/xwam{mark}"
    shown = select_published(protocol, "clean", [row])
    assert shown is not None
    assert shown.means == (() if mark else (row,))


def test_each_setting_that_differs_departs() -> None:
    assert departures() == []
    assert departures(shadows="off") == ["Shadows are off."]
    assert departures(instructions="unseen") == []
    assert departures(instructions="seen") == ["Instructions are 'seen' instead of 'unseen' (clean, randomized)."]
    (sentence,) = departures(decimate="background")
    assert "collision is untouched" in sentence
    (sentence,) = departures(expert=True)
    assert "publishes its motion" in sentence
    (sentence,) = departures(planner="mplib")
    assert sentence.startswith("The planner is mplib instead of curobo")


def test_departures_name_changed_parts_and_versions() -> None:
    assert BENCH.departures(CONFIG) == [
        "RoboTwin's task code differs from c3ddfa8.",
        "RoboTwin's settings differ from c3ddfa8.",
        "RoboTwin's sentences differ from c3ddfa8.",
        "SAPIEN's version is unknown: the interpreter for RoboTwin has no SAPIEN, or does not start; `evalkit doctor "
        "robotwin` says what is missing.",
    ]


def test_the_vetting_of_the_planned_episodes_departs(double: Path) -> None:
    def of(manifest: Manifest, **changes: Any) -> list[str]:
        write_manifest(double / "vetted.json", manifest)
        made = plan("bench.robotwin.manifest=vetted.json", **changes)
        return [sentence for sentence in made.departures if "vetted" in sentence and "vetted one" not in sentence]

    whole = double_manifest()
    (bell,) = (entry for entry in whole.entries if entry.key == ("clean", "click_bell"))

    def by(**facts: str) -> Manifest:
        return replace(whole, entries=(replace(bell, vetted_by={**bell.vetted_by, **facts}), *whole.entries[60:]))

    assert of(by()) == []
    assert of(by(planner="cpu")) == [
        "Seeds were vetted with the planner cpu instead of curobo: other seeds are accepted."
    ]
    assert of(by(planner="cpu"), setting="randomized", tasks=["lift_pot"]) == []
    assert of(by(robotwin="c3ddfa8, changed: task code")) == [
        "Seeds were vetted with RoboTwin c3ddfa8, changed: task code instead of c3ddfa8."
    ]
    assert of(by(sapien="3.0.3")) == ["Seeds were vetted with SAPIEN 3.0.3 instead of 3.0.0b1."]
    write_manifest(double / "vetted.json", by(verified_by="evalkit 2", verified_planner="cpu", verified_sapien="3.0.3"))
    made = plan("bench.robotwin.manifest=vetted.json")
    assert (
        "Of the listed seeds, only those are kept that the planner cpu with SAPIEN 3.0.3 solves too." in made.departures
    )
    assert made.bench.provenance["manifest"].endswith("verified by evalkit 2 (planner cpu)")
    assert plan(episodes=2).departures[-2] == (
        "The first state of 2 of 2 episodes is not known: a scene that differs from the vetted one is not noticed."
    )


def test_another_version_of_sapien_departs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_version(version: str) -> list[str]:
        python = tmp_path / version
        python.write_text(f"#!/bin/sh\necho '{json.dumps({'sapien': version})}'\n")
        python.chmod(0o755)
        monkeypatch.setenv(PYTHON_VARIABLE, str(python))
        return [sentence for sentence in BENCH.departures(CONFIG) if "SAPIEN" in sentence]

    assert of_version("3.0.0b1") == []
    assert plan().protocol == "robotwin-50/xwam"
    assert of_version("3.0.3") == ["SAPIEN 3.0.3 instead of 3.0.0b1: physics and images were not compared."]
    assert plan().protocol == "robotwin-50/xwam+sapien-3.0.3"


def test_another_number_of_episodes_departs() -> None:
    def of_count(episodes: int) -> list[str]:
        return [sentence for sentence in plan(episodes=episodes).departures if "per task" in sentence]

    assert of_count(3) == ["3 episodes per task instead of 100."], "seeds do not depend on the number"


def test_another_seed_keeps_scenes_and_departs() -> None:
    ours, theirs = plan(), plan(seed=3)
    assert [e.seed for e in ours.episodes] == [e.seed for e in theirs.episodes]
    assert [e.noise_key for e in theirs.episodes] == ["3_0", "3_1"]
    (sentence,) = set(theirs.departures) - set(ours.departures)
    assert sentence == "--seed 3 instead of 0: the same scenes with another noise; scenes come from the manifest."


def test_without_robotwin_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROOT_VARIABLE)
    command = ["run", "--policy", "hold", "--bench", "robotwin", "--setting", "randomized", "--dry-run"]
    done = subprocess.run([sys.executable, "-m", "evalkit.cli", *command], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: RoboTwin is not here: clone it, check out c3ddfa8, install its packages and assets (docs/robotwin.md), "
        "export EVALKIT_ROBOTWIN_ROOT=<its folder> and EVALKIT_ROBOTWIN_PYTHON=<its python>, and run this again; "
        "`evalkit doctor robotwin` says what is missing.\n"
    )


def test_a_checkout_that_does_not_fit_names_both_commits(double: Path, tmp_path: Path) -> None:
    needs = "Protocol robotwin-50/xwam needs RoboTwin at c3ddfa8 .May 2026., but .*/head holds cf47ab5.*"
    with pytest.raises(BadConfig, match=needs + "give bench.robotwin.protocol=head"):
        plan(f"bench.robotwin.root={double / 'head'}")
    (write_checkout(tmp_path / "other") / ".git/HEAD").write_text("0123456789abcdef" * 2 + "01234567\n")
    with pytest.raises(BadConfig, match="holds commit 0123456789ab: check out c3ddfa8 there"):
        plan(f"bench.robotwin.root={tmp_path / 'other'}")
    with pytest.raises(BadConfig, match="is no checkout of RoboTwin: expected envs/_base_task"):
        plan(f"bench.robotwin.root={tmp_path}")


def test_without_a_manifest_one_sentence_names_both_ways() -> None:
    with pytest.raises(BadManifest, match=r"no manifest of them at absent\.json: vet them with `evalkit vet") as caught:
        plan("bench.robotwin.manifest=absent.json")
    assert "`evalkit vet --bench robotwin --import FILE`" in str(caught.value)


def test_a_manifest_that_does_not_fit_is_one_sentence(double: Path) -> None:
    with pytest.raises(BadManifest, match="has 8 vetted episodes of click_bell in 'clean', but 9 are needed") as caught:
        plan(episodes=9)
    assert str(caught.value).endswith(
        "give --episodes 8, or vet more with `evalkit vet --bench robotwin --setting clean --tasks click_bell "
        "--episodes 9 --out results/manifests/robotwin.json`."
    )
    imported = [replace(entry, vetted_by={"by": "others"}) for entry in double_manifest().entries]
    write_manifest(double / "list.json", replace(double_manifest(), entries=tuple(imported)))
    with pytest.raises(BadManifest, match="because an imported list cannot be extended") as caught:
        plan("bench.robotwin.manifest=list.json", episodes=101)
    assert "--episodes 101 --out FILE` and name it with bench.robotwin.manifest=FILE" in str(caught.value)
    write_manifest(double / "foreign.json", double_manifest("robotwin-50-head"))
    with pytest.raises(
        BadManifest, match=r"holds episodes of 'robotwin-50-head' .*but robotwin-50/xwam needs those of"
    ):
        plan("bench.robotwin.manifest=foreign.json")
    vetting = Vetting(seed=100_000, accepted=True, instructions={"seen": "ring"})
    entry = TaskVettings(setting="clean", task="click_bell", vettings=(vetting,))
    write_manifest(double / "half.json", Manifest(bench="robotwin", protocol="robotwin-50", entries=(entry,)))
    with pytest.raises(BadManifest, match="has no 'unseen' instruction for seed 100000 of click_bell"):
        plan("bench.robotwin.manifest=half.json", episodes=1)


def test_a_manifest_that_is_written_again_is_read_again(double: Path) -> None:
    path = double / "grows.json"
    for count in (2, 4):
        write_manifest(path, double_manifest(count=count))
        assert len(plan(f"bench.robotwin.manifest={path}", episodes=count).episodes) == count


def test_specs_have_two_arms_and_the_cameras_of_the_arms_files() -> None:
    spec = BENCH.env_spec(CONFIG, task="click_bell", setting="clean")
    assert [camera.name for camera in spec.cameras] == ["head_camera", "left_camera", "right_camera"]
    assert [camera.arm for camera in spec.cameras] == [None, "left", "right"]
    assert spec.image_hw_px == (240, 320)
    # 7 cm ahead of the flange, 3.2 cm to its left, pitched down by 0.4 rad; the end effector has the flange's axes,
    # because the config's `global_trans_matrix` takes back the half turn of SAPIEN's joint frame about +x
    T_ee_cam = np.array(spec.cameras[1].T_ee_cam)
    np.testing.assert_allclose(T_ee_cam[:3, 3], [0.07, 0.032, 0.065], atol=1e-12)
    np.testing.assert_allclose(T_ee_cam[:3, 2], [np.cos(0.4), 0, -np.sin(0.4)], atol=1e-12)
    np.testing.assert_allclose(T_ee_cam[:3, 0], [0, -1, 0], atol=1e-12)


def test_layout_and_privileged_state_follow_the_settings() -> None:
    def keys(**settings: Any) -> tuple[str, ...]:
        return BENCH.env_spec(replace(CONFIG, **settings), task="lift_pot", setting="clean").privileged_keys

    assert keys() == ()
    assert keys(expert=True) == (EXPERT_KEY,)
    assert keys(protocol="qpos") == (JOINT_POSITION,)
    assert (BENCH.executed_steps(CONFIG), BENCH.executed_steps(replace(CONFIG, protocol="qpos"))) == (32, None)


def test_wrong_names_are_one_sentence() -> None:
    with pytest.raises(BadConfig, match=r"bench.robotwin.planner must be curobo, mplib or cpu, got gpu"):
        RobotwinConfig(planner="gpu")
    with pytest.raises(UnknownName, match="Did you mean 'click_bell'"):
        BENCH.env_spec(CONFIG, task="clik_bell", setting="clean")
    with pytest.raises(UnknownName, match="Did you mean 'randomized'"):
        BENCH.plan_episodes(CONFIG, task="click_bell", setting="randomised", num_episodes=1, seed=0)


def test_words_that_yaml_takes_for_booleans_stay_words() -> None:
    assert load_config(BENCH, plugins.load_policy("hold"), ["bench.robotwin.shadows=off"]).bench.config.shadows == "off"


def test_launches_are_json_and_run_in_robotwins_folder(double: Path) -> None:
    launch = BENCH.launch(CONFIG, task="click_bell", setting="randomized")
    json.dumps(launch.kwargs)
    assert launch.cwd == str(double / "RoboTwin")
    assert launch.packages["envs"] == str(double / "RoboTwin/envs")
    assert Path(launch.packages["evalkit_envs"]) == Path(bench_module.__file__).parents[1]
    assert launch.python == "/nowhere/python"


def test_a_worker_has_robotwins_envs_under_their_own_name(double: Path) -> None:
    """The checkout has a file `json.py`, which would hide the standard library's if its folder were searched first."""
    launch = BENCH.launch(replace(CONFIG, python=sys.executable), task="click_bell", setting="clean")
    spec = replace(BENCH.env_spec(CONFIG, task="click_bell", setting="clean"))
    cameras = tuple(c if c.T_ee_cam is None else replace(c, T_ee_cam=IDENTITY) for c in spec.cameras)
    with_double = replace(launch, target="envs.double_env:DoubleEnv")
    worker = EnvWorker(with_double, replace(spec, cameras=cameras))
    try:
        worker.build()
        assert worker.about["envs"] == str(double / "RoboTwin/envs/__init__.py")
        assert worker.about["ours"] == str(Path(bench_module.__file__).with_name("tasks.py"))
        assert worker.about["cwd"] == str(double / "RoboTwin")
    finally:
        worker.close()


IDENTITY = tuple(map(tuple, np.eye(4).tolist()))


def test_an_interpreter_without_sapien_names_the_doctor(double: Path) -> None:
    launch = BENCH.launch(replace(CONFIG, python=sys.executable), task="click_bell", setting="clean")
    with pytest.raises(EvalkitError, match="`evalkit doctor robotwin`"):
        EnvWorker(launch, BENCH.env_spec(CONFIG, task="click_bell", setting="clean")).build()


@pytest.mark.parametrize(
    ("line", "is_fault"),
    [
        ("[2026-11-28 03:44:12.123] [SAPIEN] [error] OIDN Error: invalid handle", True),
        ("OptiX denoiser failed to initialize", True),
        ("failed to create denoiser: out of memory", True),
        ("[SAPIEN] [info] using denoiser oidn", False),
        ("place_object_scale fail! (seed = 3)", False),
    ],
)
def test_denoiser_errors_in_the_output_end_an_episode(line: str, is_fault: bool) -> None:
    import re

    launch = BENCH.launch(CONFIG, task="click_bell", setting="clean")
    assert any(re.search(pattern, line) for pattern in launch.fatal_output) is is_fault
    raster = BENCH.launch(replace(CONFIG, renderer="raster"), task="click_bell", setting="clean")
    assert raster.fatal_output == (), "the rasterizer has no denoiser"


def test_it_is_a_bench_that_can_be_vetted() -> None:
    assert isinstance(BENCH, VettableBench)
    assert BENCH.first_vetted_seed(CONFIG) == 100_000
    assert BENCH.vetting_protocol(CONFIG) == BENCH.vetting_protocol(replace(CONFIG, protocol="qpos")) == "robotwin-50"
    assert BENCH.vetting_protocol(replace(CONFIG, protocol="head")) == "robotwin-50-head"


def test_importing_the_bench_starts_no_simulator() -> None:
    code = "import sys, envs.robotwin.bench; print({'sapien', 'torch', 'mplib', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_our_modules_of_the_worker_run_on_python_3_10() -> None:
    """They parse as Python 3.10, and import our other envs relatively: `envs` is RoboTwin's there."""
    import ast

    folder = Path(bench_module.__file__).parent
    for path in [*folder.rglob("*.py"), *(folder.parent / "sapien").rglob("*.py")]:
        tree = ast.parse(path.read_text(), feature_version=(3, 10))
        absolute = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
        assert not [name for name in absolute if name and name.partition(".")[0] == "envs"], path


def test_the_protocols_share_one_way_to_count_success() -> None:
    assert {protocol.episodes_per_task for protocol in PROTOCOLS.values()} == {100}
    assert {BENCH.success_after_steps(RobotwinConfig(protocol=name)) for name in PROTOCOLS} == {0}
    assert {protocol.commit.short for protocol in PROTOCOLS.values()} == {C3DDFA8.short, CF47AB5.short}


def test_run_folders_without_a_name_carry_the_marks() -> None:
    from evalkit.cli.run import default_path

    made = plan("bench.robotwin.planner=cpu", "bench.robotwin.renderer=raster")
    assert "-clean-cpu-planner-raster-" in default_path(made).name


def test_settings_survive_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON_VARIABLE, "/there/python")
    assert bench_module.python(CONFIG) == "/there/python"
    assert bench_module.python(replace(CONFIG, python="/here/python")) == "/here/python"
    monkeypatch.delenv(PYTHON_VARIABLE)
    assert bench_module.python(CONFIG) == sys.executable
    assert bench_module.named_root(replace(CONFIG, root="~/x")) == Path("~/x").expanduser()
    assert os.environ[ROOT_VARIABLE]
    assert isinstance(BENCH.launch(CONFIG, task="click_bell", setting="clean"), WorkerLaunch)
