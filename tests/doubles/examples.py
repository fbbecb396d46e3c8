"""Commands that help texts and pages show.

In: docstrings of verbs, Markdown pages. Out: commands as words.
Read next: `tests/unit/test_examples.py`, which checks them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.main import get_command

from evalkit.cli.main import app as evalkit_app
from evalkit.contracts.plugins import BENCHES, POLICIES, names
from xwam.cli import app as xwam_app

APPS: dict[str, Any] = {"evalkit": get_command(evalkit_app), "xwam": get_command(xwam_app)}
_IN_HELP = re.compile(r"^\s*(?:- |Example: )`((?:evalkit|xwam) [^`]+)`$", re.MULTILINE)
_IN_PAGE = re.compile(r"^(?:evalkit|xwam) .+$", re.MULTILINE)
_BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A command that a text shows.

    Attributes:
        program: `evalkit` or `xwam`.
        verb: The verb, for example `score run`.
        words: What follows the verb.
        where: The text that shows it.
    """

    program: str
    verb: str
    words: tuple[str, ...]
    where: str

    @classmethod
    def of(cls, line: str, *, where: str) -> Example:
        """Return the command of a line."""
        program, *words = shlex.split(line, comments=True)
        if words[0] == "check" and words[1:2] not in (["policy"], ["bench"], ["pair"]):
            words.insert(1, "pair")  # the form that is meant where none is named
        length = 2 if words[0] in getattr(APPS[program], "commands", {}) and _is_group(program, words[0]) else 1
        return cls(program, " ".join(words[:length]), tuple(words[length:]), where)

    def __str__(self) -> str:
        return " ".join([f"{self.where}:", self.program, self.verb, *self.words])

    @property
    def overrides(self) -> list[str]:
        """Return the settings: words with a dot before the equals sign; for `train`, all with an equals sign."""
        pairs = [word for word in self.words if "=" in word and not word.startswith("-")]
        return [pair for pair in pairs if self.verb == "train" or "." in pair.partition("=")[0]]

    @property
    def bench(self) -> str:
        """Return the bench; `doctor` also takes the name of a policy."""
        named = self.words[:1] if self.verb in ("doctor", "check bench") else []
        return named[0] if named and named[0] in names(BENCHES) else self.option("--bench", "robosuite")

    @property
    def policy(self) -> str:
        """Return the policy."""
        named = self.words[0] if self.verb in ("check policy", "doctor") and self.words else ""
        return named if named in names(POLICIES) else self.option("--policy", "xwam")

    @property
    def is_remote(self) -> bool:
        """Return whether it needs weights from the hub, a server, or files that a user has."""
        return self.policy == "remote" or any(
            "policy.xwam.checkpoint=" in word and "random" not in word for word in self.words
        )

    def option(self, flag: str, default: str) -> str:
        """Return the value of a flag."""
        return self.words[self.words.index(flag) + 1] if flag in self.words else default

    def parse(self) -> None:
        """Raise an error of typer if a flag does not exist, or a value is missing or wrong."""
        command = APPS[self.program]
        for name in self.verb.split():
            command = command.commands[name]
        if "--recipes" not in self.words:  # it prints and ends
            command.make_context(self.verb, list(self.words))

    def planned(self) -> list[str]:
        """Return the words of a command that starts no simulator: `plan`, or `record --dry-run`."""
        if self.verb == "record":
            return ["record", *self.words, "--dry-run"]
        words = [word for word in self.words if word not in ("--dry-run", "--static")]
        for option in ("--out", "--retry", "--shard", "--execution"):
            if option in words:
                position = words.index(option)
                del words[position : position + 2]
        return ["plan", *words]


def examples_in_help() -> list[Example]:
    """Return the examples in the help texts of all verbs."""
    found = []
    for program, app in APPS.items():
        for name, callback in _verbs(app, ""):
            for line in _IN_HELP.findall(callback.__doc__ or ""):
                found.append(Example.of(line, where=f"{program} {name} --help"))
    return found


def examples_in_page(page: Path) -> list[Example]:
    """Return the commands in the code blocks of a page; those that leave out a part are skipped."""
    blocks = "\n".join(_BLOCK.findall(page.read_text()))
    lines = [re.sub(r"\s*#.*$", "", line) for line in re.sub(r"\s*\\\n\s*", " ", blocks).splitlines()]
    commands = [command.strip() for line in lines for command in line.split("&&")]
    whole = [command for command in commands if _IN_PAGE.match(command) and not re.search(r"\.\.\.|<", command)]
    return [Example.of(command, where=page.name) for command in whole]


def _is_group(program: str, name: str) -> bool:
    return hasattr(APPS[program].commands[name], "commands")


def _verbs(app: Any, prefix: str) -> list[tuple[str, Callable[..., object]]]:
    verbs: list[tuple[str, Callable[..., object]]] = []
    for name, command in app.commands.items():
        if hasattr(command, "commands"):
            verbs += _verbs(command, f"{prefix}{name} ")
        else:
            verbs.append((f"{prefix}{name}", command.callback))
    return verbs
