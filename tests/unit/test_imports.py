"""Imports run one way: the rules of docs/conventions.md, read from the source."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "evalkit/contracts": {"evalkit.contracts"},
    "evalkit/dataset": {"evalkit.contracts", "evalkit.dataset"},
    "evalkit/store": {"evalkit.contracts", "evalkit.store"},
    "evalkit/run": {"evalkit.contracts", "evalkit.store", "evalkit.run"},
    "evalkit/record": {"evalkit.contracts", "evalkit.dataset", "evalkit.record"},
    "evalkit/replay": {"evalkit.contracts", "evalkit.dataset", "evalkit.record", "evalkit.replay"},
    "evalkit/score": {"evalkit.contracts", "evalkit.dataset", "evalkit.store", "evalkit.score"},
    "evalkit/score/results": {"evalkit.contracts", "evalkit.store", "evalkit.score.results"},
    "evalkit/score/metrics": {"evalkit.contracts", "evalkit.score.results", "evalkit.score.metrics"},
    "evalkit/score/sources": {
        *("evalkit.contracts", "evalkit.dataset", "evalkit.store"),
        *("evalkit.score.results", "evalkit.score.metrics", "evalkit.score.sources"),
    },
    "evalkit/report": {"evalkit.contracts", "evalkit.store", "evalkit.score", "evalkit.report"},
    "xwam": {"evalkit.contracts", "evalkit.dataset", "xwam"},
    "envs": {"evalkit.contracts", "evalkit.dataset", "envs"},
    "baselines": {"evalkit.contracts", "evalkit.dataset", "baselines", "xwam"},
}
OURS = ("evalkit", "xwam", "envs", "baselines")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_run_downwards(part: str) -> None:
    files = sorted((ROOT / part).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            if name.split(".")[0] in OURS and name != "evalkit":  # its path is looked up, nothing in it
                allowed = any(name == target or name.startswith(target + ".") for target in MAY_IMPORT[part])
                assert allowed, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("part", ["evalkit/score", "evalkit/report"])
def test_modules_of_a_package_form_no_circle(part: str) -> None:
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / part).rglob("*.py")}
    graph = {
        module: {other for name in imports(path) for other in (name, name.rpartition(".")[0]) if other in modules}
        for module, path in modules.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)


def test_renderers_of_a_report_read_documents_alone() -> None:
    renderers = sorted((ROOT / "evalkit/report").glob("render_*.py"))
    assert len(renderers) >= 3
    for path in renderers:
        ours = {name for name in imports(path) if name.split(".")[0] in OURS}
        assert {".".join(name.split(".")[:3]) for name in ours} <= {"evalkit.report.document", "evalkit.report.format"}


def test_the_harness_imports_no_simulator_and_no_model() -> None:
    for path in sorted((ROOT / "evalkit").rglob("*.py")):
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & {"robosuite", "mujoco", "sapien", "xwam", "envs", "baselines"}, path


def test_no_test_imports_another_test() -> None:
    """What several tests use is in `tests/doubles` or in a `conftest.py`."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        parts = {part for name in imports(path) for part in name.split(".")}
        assert not [part for part in parts if part.startswith("test_")], path


XWAM_ROOMS = [
    *("config", "network", "robots", "codecs", "text", "flow", "checkpoints"),
    *("serving", "nano", "training", "policy", "cli"),
]
"""Each may import itself and those before it."""


def test_rooms_of_xwam_import_one_way() -> None:
    entries = {path.relative_to(ROOT / "xwam").with_suffix("").parts[0] for path in (ROOT / "xwam").rglob("*.py")}
    assert entries == {"__init__", *XWAM_ROOMS}
    for path in sorted((ROOT / "xwam").rglob("*.py")):
        room = path.relative_to(ROOT / "xwam").with_suffix("").parts[0]
        if room == "__init__":
            continue
        allowed = XWAM_ROOMS[: XWAM_ROOMS.index(room) + 1]
        for name in imports(path):
            if name.startswith("xwam."):
                assert name.split(".")[1] in allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_xwam_is_usable_without_nano() -> None:
    rooms = ("network", "flow", "codecs", "text", "robots", "checkpoints", "serving")
    code = (
        "import sys, importlib; from pathlib import Path; import xwam\n"
        f"for room in {rooms}:\n"
        "  for p in (Path(xwam.__file__).parent / room).glob('[a-z]*.py'):\n"
        "    importlib.import_module(f'xwam.{room}.{p.stem}')\n"
        "print([name for name in sys.modules if name.startswith('xwam.nano')])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


def test_contracts_need_numpy_and_msgpack_alone() -> None:
    code = (
        "import sys; from pathlib import Path; import importlib, evalkit.contracts as c\n"
        "for p in Path(c.__file__).parent.glob('[a-z]*.py'): importlib.import_module('evalkit.contracts.' + p.stem)\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules if getattr(sys.modules[m], '__file__', None)\n"
        "  and 'site-packages' in (sys.modules[m].__file__ or '')}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in loaded if not name.startswith("_")} <= {"numpy", "msgpack"}
