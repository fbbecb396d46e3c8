"""Only `evalkit/contracts/geometry.py` changes the order of a quaternion, read from the source.

In: every module of the project. Out: a verdict.
Read next: `docs/conventions.md`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("evalkit", "xwam", "envs", "baselines", "results", "tools")
OWNER = ROOT / "evalkit/contracts/geometry.py"

AXES_CALLS = {"permute", "transpose", "moveaxis"}
"""Calls whose list of numbers names axes of an array."""


def reorders(source: str) -> Iterator[int]:
    """Yield the lines that move a quaternion's w from one end to the other."""
    nodes = list(ast.walk(ast.parse(source)))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    axes = {id(argument) for call in calls if _name(call) in AXES_CALLS for argument in call.args}
    yield from (call.lineno for call in calls if _name(call) in ("roll", "convert_quat"))
    yield from (node.value.lineno for node in nodes if isinstance(node, ast.keyword) and node.arg == "scalar_first")
    for node in nodes:
        if isinstance(node, ast.List | ast.Tuple) and id(node) not in axes and _is_turned(_places(node.elts)):
            yield node.lineno


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _places(elements: list[ast.expr]) -> list[int]:
    """Return the places that a list takes: `[3, 0, 1, 2]`, `(q[3], q[0], q[1], q[2])`, `[q[..., 3:], q[..., :3]]`."""
    places: list[int] = []
    for element in elements:
        inner = element.value if isinstance(element, ast.Starred) else element
        index = inner.slice if isinstance(inner, ast.Subscript) else inner
        index = index.elts[-1] if isinstance(index, ast.Tuple) and index.elts else index
        if isinstance(index, ast.Slice):
            lower, upper = (_number(end, default) for end, default in ((index.lower, 0), (index.upper, 4)))
            places += range(lower, min(upper, lower + 4)) if 0 <= lower < upper else []
        else:
            places.append(_number(index, -1))
    return places


def _number(node: ast.expr | None, default: int) -> int:
    return node.value if isinstance(node, ast.Constant) and type(node.value) is int else default


def _is_turned(places: list[int]) -> bool:
    first = min(places, default=-1)
    return first >= 0 and [place - first for place in places] in ([3, 0, 1, 2], [1, 2, 3, 0])


@pytest.mark.parametrize(
    "source",
    [
        "q[..., [3, 0, 1, 2]]",
        "q[:, (1, 2, 3, 0)]",
        "state[:, [4, 5, 6, 3]]",
        "order = [1, 2, 3, 0]",
        "np.roll(q, 1, axis=-1)",
        "rotation.as_quat(scalar_first=True)",
        "np.concatenate([q[..., 3:], q[..., :3]], axis=-1)",
        "np.array([q[3], q[0], q[1], q[2]])",
        "(q[3], *q[:3])",
        "np.hstack([q[:, 1:4], q[:, :1]])",
        "T.convert_quat(q, to='wxyz')",
    ],
)
def test_every_form_of_a_reorder_is_found(source: str) -> None:
    assert list(reorders(source)) == [1]


@pytest.mark.parametrize("source", ["x.permute(3, 0, 1, 2)", "np.transpose(x, (3, 0, 1, 2))", "q[..., [0, 1, 2, 3]]"])
def test_other_lists_of_numbers_are_no_reorder(source: str) -> None:
    assert list(reorders(source)) == []


def test_quaternions_are_reordered_in_one_module() -> None:
    assert list(reorders(OWNER.read_text()))
    paths = [path for folder in SOURCES for path in (ROOT / folder).rglob("*.py") if path != OWNER]
    found = [f"{path.relative_to(ROOT)}:{line}" for path in paths for line in reorders(path.read_text())]
    assert found == []
