"""RoboTwin's instructions: ours against its own generator, run in a checkout; and the sentences of published lists.

In: a checkout (`EVALKIT_ROBOTWIN_ROOT`), the published lists. Out: a verdict.
Read next: `envs/robotwin/instructions.py`.
"""

import collections
import contextlib
import functools
import importlib.util
import io
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from envs.robotwin.instructions import SPLITS, Instructions
from evalkit.contracts.errors import EvalkitError, MissingAssets

SHARED = Path(os.environ.get("EVALKIT_SHARED", Path(__file__).resolve().parents[3] / "shared"))
LISTS = SHARED / "assets/robotwin_expert_seeds"
INFOS: dict[str, dict[str, str]] = {
    "click_bell": {"{A}": "050_bell/base0", "{a}": "left"},
    "stack_blocks_two": {"{A}": "red block", "{B}": "green block", "{a}": "left", "{b}": "right"},
    "place_mouse_pad": {"{A}": "047_mouse/base0", "{B}": "Blue", "{a}": "right"},
    "handover_mic": {"{A}": "018_microphone/base0", "{a}": "left", "{b}": "right"},
    "place_bread_basket": {"{A}": "076_breadbasket/base0", "{B}": "075_bread/base0", "{a}": "dual"},
    "pick_dual_bottles": {"{A}": "001_bottle/base13", "{B}": "001_bottle/base16"},
    "handover_block": {},
}


def checkout(variable: str) -> Path:
    """Return the folder of a checkout; skip the test where there is none."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no checkout of RoboTwin")
    return Path(os.environ[variable])


@pytest.fixture(scope="module")
def root() -> Path:
    """Return the checkout at the protocol's commit."""
    return checkout("EVALKIT_ROBOTWIN_ROOT")


@pytest.fixture(scope="module")
def generator(root: Path) -> ModuleType:
    """Return RoboTwin's own generator of instructions."""
    path = root / "description/utils/generate_episode_instructions.py"
    spec = importlib.util.spec_from_file_location("robotwin_generator", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def every_sentence(generator: ModuleType, task: str, info: Mapping[str, str], split: str) -> Iterator[str]:
    """Yield each sentence that RoboTwin's generator can draw: its own code, with every choice taken once."""
    fill = generator.replace_placeholders if split == "seen" else generator.replace_placeholders_unseen
    for template in generator.filter_instructions(generator.load_task_instructions(task)[split], info):
        for choice in itertools.product(*map(range, _number_of_choices(generator, fill, template, info))):
            numbers = iter(choice)
            yield _with_choices(generator, lambda options, n=numbers: options[next(n)], fill, template, info)


def _number_of_choices(generator: Any, fill: Any, *args: Any) -> list[int]:
    sizes: list[int] = []

    def choose(options: list[str]) -> str:
        sizes.append(len(options))
        return options[0]

    _with_choices(generator, choose, fill, *args)
    return sizes


def _with_choices(generator: Any, choose: Any, fill: Any, *args: Any) -> str:
    before = generator.random
    generator.random = SimpleNamespace(choice=choose)
    try:
        return str(fill(*args))
    finally:
        generator.random = before


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", INFOS)
def test_the_generator_and_ours_agree(root: Path, generator: ModuleType, task: str, split: str) -> None:
    ours, info = Instructions.read(root / "description", task), INFOS[task]
    theirs = set(every_sentence(generator, task, info, split))
    assert theirs
    assert all(ours.can_be_said(sentence, info, split) for sentence in sorted(theirs)[:: max(1, len(theirs) // 500)])
    drawn = {ours.draw(info, split, setting="clean", seed=seed) for seed in range(300)}
    assert drawn <= theirs
    others = {"{a}": {"left": "right", "right": "left", "dual": "left"}, "{A}": collections.defaultdict(lambda: "moon")}
    for key in info.keys() & others.keys():
        changed = {**info, key: others[key][info[key]]}
        foreign = set(every_sentence(generator, task, changed, split))
        few = sorted(foreign - theirs)[:200]
        assert few or key == "{a}"  # some tasks name no arm, or always every one
        assert not any(ours.can_be_said(sentence, info, split) for sentence in few)
    assert not ours.can_be_said(min(theirs) + " ", info, split)
    assert not ours.can_be_said(min(theirs)[:-1], info, split)


def test_a_placeholder_stands_for_one_phrase(tmp_path: Path) -> None:
    ours = Instructions("lift", {"seen": ["Take {A}, lift {A} with {a}."]}, tmp_path)
    (tmp_path / "cup").mkdir()
    (tmp_path / "cup/base0.json").write_text(json.dumps({"seen": ["red cup", "cup (red)"], "unseen": ["mug"]}))
    info = {"{A}": "cup/base0", "{a}": "left"}
    assert ours.can_be_said("Take the cup (red), lift the cup (red) with the left arm.", info, "seen")
    assert not ours.can_be_said("Take the cup (red), lift the red cup with the left arm.", info, "seen")


def test_every_template_has_the_same_chance(root: Path, generator: ModuleType) -> None:
    info = {"{A}": "red block", "{B}": "green block", "{a}": "left", "{b}": "right"}
    ours = Instructions.read(root / "description", "stack_blocks_two")
    counts = collections.Counter(ours.draw(info, "seen", setting="clean", seed=seed) for seed in range(20_000))
    expected = collections.Counter(every_sentence(generator, "stack_blocks_two", info, "seen"))
    assert counts.keys() == expected.keys()
    mean = 20_000 / expected.total()
    chi_square = sum((counts[text] - mean * times) ** 2 / (mean * times) for text, times in expected.items())
    degrees = len(expected) - 1
    assert abs(chi_square - degrees) < 4 * (2 * degrees) ** 0.5


def test_a_draw_depends_on_task_setting_seed_and_split(root: Path) -> None:
    info = INFOS["click_bell"]
    ours = Instructions.read(root / "description", "click_bell")
    draws = {
        (split, setting): [ours.draw(info, split, setting=setting, seed=seed) for seed in range(100_000, 100_020)]
        for split in SPLITS
        for setting in ("clean", "randomized")
    }
    assert draws["seen", "clean"][0] == ours.draw(info, "seen", setting="clean", seed=100_000)
    assert len({tuple(sentences) for sentences in draws.values()}) == 4
    assert all(len(set(sentences)) > 1 for sentences in draws.values())
    with pytest.raises(ValueError, match=r"no template of 'click_bell' \(seen\) has the scene's placeholders \({Z}\)"):
        ours.draw({"{Z}": "moon"}, "seen", setting="clean", seed=0)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    folder = re.escape(tmp_path.name)
    with pytest.raises(MissingAssets, match=rf"^{folder}/task_instruction/lift\.json is missing"):
        Instructions.read(tmp_path, "lift")
    (tmp_path / "task_instruction").mkdir()
    path = tmp_path / "task_instruction/lift.json"
    for text in ("[", "[]", '{"seen": [], "unseen": ["Lift {A}."]}', '{"seen": "Lift {A}.", "unseen": []}'):
        path.write_text(text)
        with pytest.raises(EvalkitError, match=r"lift\.json"):
            Instructions.read(tmp_path, "lift")
    path.write_text('{"seen": ["Lift {A}."], "unseen": ["Raise {A}."]}')
    ours = Instructions.read(tmp_path, "lift")
    with pytest.raises(MissingAssets, match=rf"^{folder}/objects_description/050_bell/base0\.json is missing"):
        ours.can_be_said("Lift the bell.", {"{A}": "050_bell/base0"}, "seen")
    assert ours.draw({"{A}": "red block"}, "unseen", setting="clean", seed=0) == "Raise red block."


def share_of_listed_sentences(root: Path, task: str) -> tuple[int, int]:
    """Return how many listed sentences of a task fit its templates and objects, and how many are listed."""
    ours = Instructions.read(root / "description", task)
    models = sorted(set(re.findall(r"\d{3}_[\w-]+", (root / f"envs/{task}.py").read_text())))
    files = [path for model in models for path in (ours.objects / model).glob("*.json")]
    fitting = total = 0
    for split in SPLITS:
        phrases = {phrase for path in files for phrase in json.loads(path.read_text())[split]}
        thing = "(?:" + "|".join(["the " + re.escape(phrase) for phrase in phrases] + [r"\w+(?: block)?"]) + ")"
        loose = {template: re.compile(_expression(template, "(.+)")) for template in ours.templates[split]}
        strict = functools.cache(lambda template, thing=thing: re.compile(_expression(template, thing)))
        for setting in ("clean", "randomized"):
            for episode in json.loads((LISTS / f"demo_{setting}.json").read_text())["tasks"][task]["episodes"]:
                sentence = episode[split]
                matches = {t: match for t, pattern in loose.items() if (match := pattern.fullmatch(sentence))}
                total += 1
                fitting += any(
                    all(group.removeprefix("the ") in phrases for group in match.groups()) for match in matches.values()
                ) or any(strict(template).fullmatch(sentence) for template in matches)  # slow, and rarely needed
    return fitting, total


def _expression(template: str, thing: str) -> str:
    """Return the expression of a template: `thing` in the place of an object, any arm in the place of an arm."""
    parts = re.split(r"\{(.)\}", template)
    texts = [re.escape(part) for part in parts[::2]]
    fillings = [thing if name.isupper() else "the (?:left|right|dual) arm" for name in parts[1::2]]
    return "".join(itertools.chain(*itertools.zip_longest(texts, fillings, fillvalue="")))


@pytest.mark.skipif(not LISTS.is_dir(), reason="the published lists are not there")
@pytest.mark.parametrize(
    ("variable", "expected"), [("EVALKIT_ROBOTWIN_ROOT", 1.0), ("EVALKIT_ROBOTWIN_HEAD_ROOT", 0.8)]
)
def test_listed_sentences_are_of_the_commit(variable: str, expected: float) -> None:
    root = checkout(variable)
    tasks = json.loads((LISTS / "demo_clean.json").read_text())["tasks"]
    with contextlib.redirect_stdout(io.StringIO()):
        counts = [share_of_listed_sentences(root, task) for task in tasks]
    fitting, total = (sum(column) for column in zip(*counts, strict=True))
    assert total == 20_000
    assert round(fitting / total, 3) == expected
