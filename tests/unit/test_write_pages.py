"""The pages for authors of policies and benches, followed word for word in an empty folder.

In: docs/write_a_policy.md, docs/write_a_bench.md. Out: their files written, packages installed for real, commands run.
Read next: `evalkit/testing/`, which `evalkit check` runs.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = {"write_a_policy.md": 60, "write_a_bench.md": 100}
"""Pages, and the most lines that a reader must write, without blank ones."""


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def files(name: str) -> dict[str, str]:
    """Return each block that follows "Write `name`"."""
    return dict(re.findall(r"^Write `([\w.]+)`[^\n]*\n\n```\w+\n(.*?)^```$", page(name), re.M | re.S))


def write_files(name: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for file, content in files(name).items():
        (folder / file).write_text(content)


def environment(installed: Path) -> dict[str, str]:
    """Return variables that make pip install into a folder, without network, and python find what is there."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{installed}:{ROOT}",
        "PIP_TARGET": str(installed),
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


def run(command: str, folder: Path) -> str:
    """Run a command in a folder of which `installed` holds packages, away from the sources, and return its output."""
    where = folder if command.startswith("python") else folder / "elsewhere"
    where.mkdir(exist_ok=True)
    done = subprocess.run(
        command, shell=True, cwd=where, env=environment(folder / "installed"), capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("name", MOST_LINES)
def test_a_page_needs_few_lines(name: str) -> None:
    assert len(files(name)) == 2
    lines = [line for content in files(name).values() for line in content.splitlines() if line.strip()]
    assert len(lines) <= MOST_LINES[name]


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", MOST_LINES)
def test_a_page_leads_to_a_package_that_runs(name: str, tmp_path: Path) -> None:
    write_files(name, tmp_path)
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", page(name), re.M | re.S)
    outputs = {command: run(command, tmp_path) for command in commands.splitlines()}
    assert list((tmp_path / "installed").glob("*.dist-info/entry_points.txt"))
    assert len(outputs) >= 4
    (checked,) = (output for command, output in outputs.items() if command.startswith("evalkit check"))
    (shown,) = re.findall(r"^```text\n(.*?)^```$", page(name), re.M | re.S)
    (listed,) = (output for command, output in outputs.items() if command.startswith("evalkit list"))
    assert checked.startswith(shown) or listed.startswith(shown)
    assert "keeps its contract" in checked
    assert "doubtful" not in checked
    rows = re.findall(r"^\| ([a-z ]+) \| ", page(name).partition("evalkit check")[2].partition("## What else")[0], re.M)
    assert [row for row in rows if row != "check"] == [line[9:].split("  ")[0] for line in checked.splitlines()[:-2]]


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_two_plugins_work_together(tmp_path: Path) -> None:
    for name in MOST_LINES:
        write_files(name, tmp_path / "elsewhere")
    run("evalkit run --policy creep_policy:CreepPlugin --bench line_bench:LineBench --episodes 2 --out run", tmp_path)
    records = (tmp_path / "elsewhere/run/episodes.jsonl").read_text().splitlines()
    assert len([line for line in records if '"success"' in line]) == 2
