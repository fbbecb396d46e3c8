"""The two recipes of CONTRIBUTING.md, followed word for word in an empty folder.

In: the Markdown page. Out: its files written, its commands run, its listings compared.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
RECIPES = {"Add a bench": 4, "Add a policy": 4}
"""Headings, and how many commands each has."""


def section(heading: str) -> str:
    """Return the text under a heading."""
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def write_files(recipe: str, folder: Path) -> None:
    """Write each block that follows "Write `name`"."""
    for name, content in re.findall(r"^Write `([\w.]+)`[^\n]*\n\n```\w+\n(.*?)^```$", recipe, re.M | re.S):
        (folder / name).write_text(content)


def environment(installed: Path) -> dict[str, str]:
    """Return variables that make pip install into a folder, without network, and python find what is there."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{installed}:{ROOT}",
        "PIP_TARGET": str(installed),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads 0 as "no isolation"
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def run(command: str, folder: Path) -> str:
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment(folder / "installed"), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.sim
@pytest.mark.parametrize("heading", RECIPES)
def test_a_recipe_works_in_an_empty_folder(heading: str, tmp_path: Path) -> None:
    recipe = section(heading)
    write_files(recipe, tmp_path)
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", recipe, re.M | re.S)
    outputs = {command: run(command, tmp_path) for command in commands.splitlines()}
    assert len(outputs) == RECIPES[heading]
    (listing,) = re.findall(r"^```text\n(.*?)^```$", recipe, re.M | re.S)
    (listed,) = (output for command, output in outputs.items() if command.startswith("evalkit list"))
    assert listed.startswith(listing)


@pytest.mark.sim
def test_the_two_plugins_work_together(tmp_path: Path) -> None:
    for heading in RECIPES:
        write_files(section(heading), tmp_path)
    run("evalkit run --policy creep_policy:CreepPlugin --bench line_bench:LineBench --episodes 2 --out run", tmp_path)
    records = (tmp_path / "run" / "episodes.jsonl").read_text().splitlines()
    assert len([line for line in records if '"success"' in line]) == 2
