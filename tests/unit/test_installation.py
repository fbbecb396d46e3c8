"""What pip installs: the pins fit together for every extra, and every page names the same Python versions.

In: pyproject.toml, constraints.txt, the installed packages. Out: a verdict.
Read next: constraints.txt, whose head says what is held back.
"""

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from evalkit import doctor

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = sorted(PROJECT["optional-dependencies"])


def pins() -> dict[str, str]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    names = dict(line.split("==") for line in lines if line)
    return {canonicalize_name(name): version for name, version in names.items()}


def test_every_page_names_the_same_python_versions() -> None:
    supported = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}.5" in supported] == [
        f"{major}.{minor}" for major, minor in doctor.PYTHONS
    ]
    assert str(list(doctor.PYTHONS)) in (ROOT / "Makefile").read_text()
    named = " or ".join(f"{major}.{minor}" for major, minor in doctor.PYTHONS)
    assert f"Python {named}" in (ROOT / "README.md").read_text()


def test_every_requirement_has_a_pin() -> None:
    asked = [*PROJECT["dependencies"], *(text for extra in EXTRAS for text in PROJECT["optional-dependencies"][extra])]
    names = {canonicalize_name(Requirement(text).name) for text in asked} - {"evalkit"}
    assert names <= set(pins())


def test_pins_fit_what_packages_require() -> None:
    """Of all packages that are installed in their pinned version: what one requires is what another is pinned to."""
    fixed = pins()
    compared = 0
    for package in metadata.distributions():
        name = canonicalize_name(package.name)
        if fixed.get(name) != package.version.split("+")[0]:
            continue
        for text in package.requires or []:
            needed = Requirement(text)
            pin = fixed.get(canonicalize_name(needed.name))
            if pin is None or (needed.marker is not None and not needed.marker.evaluate({"extra": ""})):
                continue
            compared += 1
            assert needed.specifier.contains(pin, prereleases=True), f"{name} requires {needed}, constraints say {pin}"
    assert compared > 100


def resolve(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Ask pip what it would install; nothing is installed."""
    asked = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    return subprocess.run([*asked, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def index() -> None:
    """Skip where no package index answers."""
    if resolve("--no-deps", f"einops=={pins()['einops']}").returncode != 0:
        pytest.skip("no package index answers here")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("constraints", [("-c", "constraints.txt"), ()], ids=["pinned", "free"])
@pytest.mark.parametrize("extra", EXTRAS)
def test_pip_resolves_every_extra(extra: str, constraints: tuple[str, ...]) -> None:
    """Asks the package index. Without pins, what pip chooses must import; `BREAKS` says what does not."""
    done = resolve(*constraints, f".[{extra}]")
    assert done.returncode == 0, done.stderr[-2000:]
    chosen: dict[str, str] = {
        canonicalize_name(package["metadata"]["name"]): package["metadata"]["version"]
        for package in json.loads(done.stdout)["install"]
    }
    for name, versions in BREAKS.items():
        assert name not in chosen or chosen[name] not in SpecifierSet(versions), (
            f"{name} {chosen[name]} does not import"
        )


BREAKS = {"numpy": ">=2", "pyarrow": ">=26", "mujoco": ">=3.10"}
"""Versions that fail at import or at use next to robosuite 1.5.2 and numpy 1.26; see the head of constraints.txt."""


def test_what_breaks_is_excluded_without_pins() -> None:
    asked: dict[str, Requirement] = {
        canonicalize_name(Requirement(text).name): Requirement(text) for text in PROJECT["dependencies"]
    }
    for name, versions in BREAKS.items():
        first = Version(versions.removeprefix(">="))
        assert not asked[name].specifier.contains(first), f"{name} {first} would be installed"
        assert asked[name].specifier.contains(pins()[name])
