"""Texts use plain words: the terms of the field, and none of the words that this project once had in their place.

In: string literals, docstrings, comments and names of every Python file; Markdown pages; the Makefile. Out: a verdict.
Read next: CONTRIBUTING.md, which states the rule.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
BANNED = re.compile(
    r"\b(besides?|told|nobody|somebody|anew|mend(?:s|ed|ing)?|likewise|there and back|return quietly|(?:is|are) worth|"
    r"what is seen|what happened|pushed about|hands?|pictures?|legs?|looks? into)\b",
    re.IGNORECASE,
)
ALLOWED = re.compile(r"by hand\b|hand-written|hand-eye|second-hand|left[- ]hand|right[- ]hand", re.IGNORECASE)
"""Ordinary English and terms of the field that hold a banned word."""
KEPT = {
    "Lift the pot by its two handles, one hand on each.",
    "Pick up the hammer with one hand and pass it to the other.",
    "pictures",
    "hand",
}
"""Instructions of planned episodes, a key of a file format, and a word in names of cameras; all come from others."""
CODE = ("evalkit", "xwam", "envs", "baselines", "results", "tools")
PAGES = ("README.md", "CONTRIBUTING.md", "docs", "results")


class Text(NamedTuple):
    """A piece of text, where it is, and whether users see it."""

    place: str
    text: str
    shown: bool


def banned_words(text: str) -> list[str]:
    """Return the banned words of a text.

    Example:
        >>> banned_words("Written by hand, beside the Picture"), banned_words("handle it beforehand")
        (['beside', 'Picture'], [])
    """
    return [] if text in KEPT else BANNED.findall(ALLOWED.sub("", text))


def texts_of_code(path: Path) -> Iterator[Text]:
    """Yield string literals (shown), docstrings and comments (not shown)."""
    name, source = str(path.relative_to(ROOT)), path.read_text()
    tree = ast.parse(source)
    notes = {id(node) for node in _notes(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(f"{name}:{node.lineno}", node.value, id(node) not in notes)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(f"{name}:{token.start[0]}", token.string, False)


def texts_of_pages() -> Iterator[Text]:
    """Yield each line of the Markdown pages and of the Makefile."""
    paths = [
        path for name in PAGES for path in ([ROOT / name] if name.endswith(".md") else (ROOT / name).rglob("*.md"))
    ]
    for path in [*paths, *ROOT.glob("xwam/**/*.md"), ROOT / "Makefile"]:
        name = str(path.relative_to(ROOT))
        if "runs" not in path.parts:
            yield from (Text(f"{name}:{i}", line, True) for i, line in enumerate(path.read_text().splitlines(), 1))


def _notes(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield strings that stand alone as statements: docstrings of modules, classes, functions and constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def offenders() -> list[tuple[Text, list[str]]]:
    """Return every text with banned words."""
    code = [text for folder in CODE for path in sorted((ROOT / folder).rglob("*.py")) for text in texts_of_code(path)]
    return [(text, words) for text in (*code, *texts_of_pages()) if (words := banned_words(text.text))]


def test_what_users_read_has_no_banned_word() -> None:
    shown = [f"{text.place}: {', '.join(words)}" for text, words in offenders() if text.shown]
    assert not shown, f"{len(shown)} texts:\n" + "\n".join(shown)


def test_docstrings_and_comments_have_no_banned_word() -> None:
    hidden = [f"{text.place}: {', '.join(words)}" for text, words in offenders() if not text.shown]
    assert not hidden, f"{len(hidden)} texts:\n" + "\n".join(hidden)


def test_test_names_are_short() -> None:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        names = re.findall(r"^def (test_\w+)", path.read_text(), re.M)
        assert [name for name in names if len(name) >= 60] == [], path
