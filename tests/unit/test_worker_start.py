"""Where an env process looks for packages: never first in the current folder, and for ours in our tree."""

import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.worker import start
from evalkit.contracts.worker.client import EnvWorker
from tests.doubles.bench import FakeBench, FakeBenchConfig

OWN_BENCH = """
from tests.doubles.bench import FakeEnv

class OwnEnv(FakeEnv):
    pass
"""


def built(target: str | None = None) -> EnvWorker:
    config = FakeBenchConfig()
    launch = FakeBench().launch(config, task="Near", setting="default")
    spec = FakeBench().env_spec(config, task="Near", setting="default")
    return EnvWorker(replace(launch, target=target or launch.target), spec).build()


def searched(code: str, *, cwd: Path) -> str:
    """Return what code prints after the first lines of an env process, in a folder."""
    begin = f"import runpy; names = runpy.run_path({str(start.__file__)!r}); names['search_packages'](); "
    done = subprocess.run(
        [sys.executable, "-c", begin + code], cwd=cwd, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["numpy", "msgpack", "evalkit", "envs", "json"])
def test_a_folder_with_a_packages_name_hides_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    monkeypatch.chdir(tmp_path)
    with closing(built()):
        pass


def test_an_own_bench_may_lie_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_bench.py").write_text(OWN_BENCH)
    monkeypatch.chdir(tmp_path)
    with closing(built("own_bench:OwnEnv")):
        pass


@pytest.mark.parametrize("package", [True, False], ids=["package", "folder"])
@pytest.mark.parametrize("name", ["tools", "docs", "own"])
def test_an_own_bench_may_lie_in_a_folder(
    name: str, package: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a folder of the same name lies next to evalkit."""
    (tmp_path / name).mkdir()
    (tmp_path / name / "own_bench.py").write_text(OWN_BENCH)
    if package:
        (tmp_path / name / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    with closing(built(f"{name}.own_bench:OwnEnv")):
        pass


def test_what_an_own_bench_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_bench.py").write_text("import no_such_simulator")
    monkeypatch.chdir(tmp_path)
    for target, missing in [("own_bench:OwnEnv", "no_such_simulator"), ("tools.no_bench:OwnEnv", "tools.no_bench")]:
        with pytest.raises(EvalkitError, match=f"No module named '{missing}'"):
            built(target)


def test_the_current_folder_is_not_searched(tmp_path: Path) -> None:
    path = searched("import sys; print([p for p in sys.path if p in ('', '.')], sys.path[-1])", cwd=tmp_path)
    assert path == f"[] {start.ROOT}"


def test_evalkit_comes_from_the_asking_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another evalkit that the interpreter finds first is not used."""
    (tmp_path / "evalkit").mkdir()
    (tmp_path / "evalkit/__init__.py").write_text("other = True")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = searched("import evalkit, sys; print(evalkit.__file__)", cwd=tmp_path)
    assert found == str(start.ROOT / "evalkit/__init__.py")
