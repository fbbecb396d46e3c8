"""Imports run one way: the rules of docs/conventions.md, read from the source."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("evalkit", "xwam", "envs", "baselines")
MAY_IMPORT = {
    "evalkit/contracts": {"evalkit.contracts"},
    "evalkit/dataset": {"evalkit.contracts", "evalkit.dataset"},
    "evalkit/store": {"evalkit.contracts", "evalkit.store"},
    "evalkit/serve": {"evalkit.contracts", "evalkit.serve", "evalkit.config"},
    "evalkit/run": {"evalkit.contracts", "evalkit.dataset", "evalkit.store", "evalkit.serve", "evalkit.run"},
    "evalkit/vet": {"evalkit.contracts", "evalkit.run.settings", "evalkit.vet"},
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
    "evalkit/config.py": {"evalkit.contracts", "evalkit.run.settings"},
    "evalkit/console.py": set(),
    "evalkit/doctor.py": {"evalkit.contracts", "evalkit.score.metrics"},
    "evalkit/testing": {"evalkit.contracts", "evalkit.run.settings", "evalkit.testing"},
    "evalkit/api.py": {
        *("evalkit.contracts", "evalkit.config", "evalkit.store", "evalkit.run", "evalkit.score", "evalkit.report"),
        "evalkit.vet",
    },
    "evalkit/cli": {
        *("evalkit.contracts", "evalkit.store", "evalkit.run", "evalkit.record", "evalkit.replay", "evalkit.score"),
        *("evalkit.report", "evalkit.config", "evalkit.console", "evalkit.doctor", "evalkit.cli", "evalkit.vet"),
        *("evalkit.testing", "evalkit.serve"),
    },
    "evalkit/__init__.py": {"evalkit.api"},
    "xwam": {"evalkit.contracts", "evalkit.dataset", "xwam"},
    "envs": {"evalkit.contracts", "evalkit.dataset", "envs"},
    # the policy `remote` is a client of policy servers, ours among them
    "baselines": {
        *("evalkit.contracts", "evalkit.dataset", "baselines", "xwam"),
        *("evalkit.serve.client", "evalkit.serve.connection", "evalkit.serve.greeting"),
    },
}
"""What the modules of a folder, or a module, may import of ours."""

RENAMED = (("envs", "robotwin"), ("envs", "sapien"))
"""Packages that RoboTwin's worker imports as `evalkit_envs.robotwin` and `evalkit_envs.sapien`."""


def imports(path: Path, *, for_types: bool = True) -> set[str]:
    """Return the imported names; without `for_types`, only those that are imported when the code runs."""
    names: set[str] = set()
    for node in nodes(ast.parse(path.read_text()), for_types):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                assert relative_imports_allowed(path), f"{path}: write imports in full"
                parents = path.relative_to(ROOT).parts[: -node.level]
                module = ".".join([*parents, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def relative_imports_allowed(path: Path) -> bool:
    """Return whether a module may be imported under another name: in the worker, `envs` is RoboTwin's package."""
    return path.relative_to(ROOT).parts[:2] in RENAMED


def nodes(tree: ast.AST, for_types: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if for_types or not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from nodes(node, for_types)


def modules() -> dict[str, Path]:
    """Return every module of ours and its path; a package is the module of its `__init__.py`."""
    paths = [path for package in OURS for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_run_downwards(part: str) -> None:
    files = [ROOT / part] if part.endswith(".py") else sorted((ROOT / part).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            if name.split(".")[0] in OURS:
                allowed = any(name == target or name.startswith(target + ".") for target in MAY_IMPORT[part])
                assert allowed, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("folder", ["/".join(parts) for parts in RENAMED])
def test_renamed_packages_import_envs_relatively(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            full = [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            full += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            absolute = [name for name in full if name.split(".")[0] in ("envs", "evalkit_envs")]
            # RoboTwin's own `envs` is imported by name where it is asked for, with `importlib`
            assert not absolute, f"{path.relative_to(ROOT)}: write `from .` or `from ..`, not {absolute}"


def test_every_part_of_evalkit_has_a_rule() -> None:
    parts = {
        f"evalkit/{path.name}"
        for path in (ROOT / "evalkit").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert parts <= set(MAY_IMPORT)


def test_imports_form_no_circle() -> None:
    paths = modules()
    graph = {
        module: {
            other
            for name in imports(path, for_types=False)
            for other in (name, name.rpartition(".")[0])
            if other in paths and other != module
        }
        for module, path in paths.items()
    }
    assert {"evalkit", "evalkit.contracts.worker.wire", "xwam.policy", "envs.robosuite.bench"} <= set(graph)
    assert len(list(TopologicalSorter(graph).static_order())) == len(paths)


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
    *("config", "families", "text", "network", "robots", "codecs", "flow", "checkpoints"),
    *("serving", "nano", "training", "family", "policy", "cli"),
]
"""Each may import itself and those before it. The protocol in `families` names the types of later ones, too."""


def test_rooms_of_xwam_import_one_way() -> None:
    entries = {path.relative_to(ROOT / "xwam").with_suffix("").parts[0] for path in (ROOT / "xwam").rglob("*.py")}
    assert entries == {"__init__", *XWAM_ROOMS}
    for path in sorted((ROOT / "xwam").rglob("*.py")):
        room = path.relative_to(ROOT / "xwam").with_suffix("").parts[0]
        if room == "__init__":
            continue
        allowed = XWAM_ROOMS[: XWAM_ROOMS.index(room) + 1]
        for name in imports(path, for_types=room != "families"):
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
        "import sys, importlib, json\n"
        "for name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules if getattr(sys.modules[m], '__file__', None)\n"
        "  and 'site-packages' in (sys.modules[m].__file__ or '')}))"
    )
    contracts = [name for name in modules() if name.startswith("evalkit.contracts")]
    assert {"evalkit.contracts.types", "evalkit.contracts.worker.server"} <= set(contracts)
    command = [sys.executable, "-c", code, json.dumps(contracts)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in loaded if not name.startswith("_")} <= {"numpy", "msgpack"}
