"""What pip installs: the pins fit together for every extra, and every page names the same Python versions.

In: pyproject.toml, constraints.txt, the installed packages. Out: a verdict.
Read next: constraints.txt, whose head says what is held back.
"""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

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


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("extra", EXTRAS)
def test_pip_resolves_every_extra(extra: str) -> None:
    """Asks the package index, so it needs a network."""
    asked = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    done = subprocess.run(
        [*asked, "-c", "constraints.txt", f".[{extra}]"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
