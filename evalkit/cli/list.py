"""The verb `list`: which benches and policies there are, what they need, and whether it is here.

In: perhaps a bench or a policy. Out: lines on the screen. No framework is imported and no process is started.
Read next: `evalkit/contracts/env.py`, where `GlancedPlugin` says what is here; `plan.py` for the next verb.
"""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.text import Text

from evalkit.console import out
from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.text import count_of

if TYPE_CHECKING:
    from evalkit.contracts.env import Bench, Finding
    from evalkit.contracts.policy import PolicyPlugin
    from evalkit.contracts.spec import PolicySpec


class Trait(NamedTuple):
    """One line about a bench or a policy: a word, a text, and the colour of the text."""

    word: str
    text: str
    style: str = ""


def list_(
    bench: Annotated[
        str | None, typer.Option("--bench", metavar="NAME", help="Show this bench's tasks, settings and keys.")
    ] = None,
    policy: Annotated[str | None, typer.Option("--policy", metavar="NAME", help="Show this policy's keys.")] = None,
) -> None:
    """List benches and policies; with --bench or --policy, list what each offers.

    A bench is a simulator with tasks. A policy acts in it. The list says what a bench gives and a policy predicts, what
    each needs, and whether that is here; `evalkit doctor NAME` looks closer. The keys can be overridden as `key=value`.

    Examples:

    - `evalkit list`
    - `evalkit list --bench robosuite --policy xwam`
    """
    from evalkit.contracts import plugins

    if bench is None and policy is None:
        _print_plugins("benches", plugins.names(plugins.BENCHES), plugins.load_bench, describe_bench)
        _print_plugins("policies", plugins.names(plugins.POLICIES), plugins.load_policy, describe_policy)
        return
    from evalkit.contracts.execution import Execution
    from evalkit.run.settings import RunSettings

    if bench is not None:
        bench_plugin = plugins.load_bench(bench)
        out.print(f"{bench_plugin.name}: {bench_plugin.summary}", style="bold")
        out.print(f"protocol  {bench_plugin.protocol}")
        out.print(f"settings  {', '.join(bench_plugin.settings)}")
        out.print(f"tasks     {', '.join(bench_plugin.tasks)}")
        _print_traits(describe_bench(bench_plugin))
        _print_keys(f"bench.{bench_plugin.name}", bench_plugin.config_type)
    if policy is not None:
        policy_plugin = plugins.load_policy(policy)
        out.print(f"{policy_plugin.name}: {policy_plugin.summary}", style="bold")
        _print_traits(describe_policy(policy_plugin))
        _print_keys(f"policy.{policy_plugin.name}", policy_plugin.config_type)
    out.print("for every bench and policy", style="bold")
    out.print("key       bench.max_steps=null")
    out.print("          Shortens every episode to this many steps; a departure from the protocol.", style="dim")
    _print_keys("run", RunSettings)
    _print_keys("execution", Execution)


def describe_bench(bench: Bench) -> list[Trait]:
    """Return what the envs of a bench give, and what the bench needs."""
    try:
        config = bench.config_type()
        spec = bench.env_spec(config, task=bench.tasks[0], setting=bench.settings[0])
    except Exception as error:  # a bench is anyone's code, and may lack its simulator
        given = [Trait("gives", f"not known here: {_first_part(error)}", "yellow")]
    else:
        kinds = _counted([camera.kind for camera in spec.cameras])
        height, width = spec.image_hw_px
        images = f"{kinds}, {height} x {width} px"
        text = f"{count_of(len(bench.tasks), 'task')}; {images}; {spec.action_layout}; {spec.control_hz:g} Hz"
        given = [Trait("gives", text)]
    return [*given, *_present(bench)]


def describe_policy(policy: PolicyPlugin) -> list[Trait]:
    """Return what a policy predicts with its default settings, what it needs of an env, and what it needs here."""
    try:
        spec = policy.spec(policy.config_type())
    except Exception as error:  # a policy is anyone's code, and may lack its weights
        return [Trait("needs", f"not known here: {_first_part(error)}", "yellow"), *_present(policy)]
    return [Trait("predicts", predicted_text(spec)), Trait("needs", needed_text(spec)), *_present(policy)]


def _first_part(error: Exception) -> str:
    """Return what an error says before its advice.

    Example:
        >>> _first_part(ValueError("RoboTwin is not here: clone it, then install it."))
        'RoboTwin is not here'
    """
    return re.split(r"[:;] ", str(error), maxsplit=1)[0].rstrip(".")


def predicted_text(spec: PolicySpec) -> str:
    """Return what a policy predicts."""
    names = {"rgb": "RGB", "depth": "depth", "proprio": "states"}
    if not spec.predicts:
        return "nothing"
    frames = f"{count_of(spec.num_future_frames, 'frame')}, {count_of(spec.frame_stride, 'step')} apart"
    given = "; also the outcome of given actions" if spec.takes_actions else ""
    return f"{', '.join(names[kind] for kind in spec.predicts)} ({frames}){given}"


def needed_text(spec: PolicySpec) -> str:
    """Return what a policy needs of an env; what its spec leaves open is not named."""
    from evalkit.contracts.spec import oracle_keys

    size = None if spec.image_hw_px is None else "{} x {} px".format(*spec.image_hw_px)
    if not spec.needs_images:
        images = "no images"
    else:
        images = ", ".join(each for each in (_counted(spec.views) if spec.views else "any views", size) if each)
    parts = [
        images,
        " or ".join(spec.action_layouts),
        "" if spec.arms is None else f"{' and '.join(spec.arms)} arm",
        "" if spec.control_hz is None else f"{spec.control_hz:g} Hz",
        "" if spec.past_frame_stride is None else f"frames between requests, one every {spec.past_frame_stride} steps",
        f"oracle: reads {_read(keys)}" if (keys := oracle_keys(spec.privileged_keys)) else "",
        "" if spec.env_ids is None else f"only {_grouped(spec.env_ids)}",
    ]
    return "; ".join(part for part in parts if part)


def _grouped(env_ids: tuple[str, ...]) -> str:
    """Return how many tasks of which benches there are.

    Example:
        >>> _grouped(("robosuite/Lift", "robosuite/Door", "line/Reach"))
        '2 tasks of robosuite, 1 task of line'
    """
    counts = Counter(env_id.partition("/")[0] for env_id in env_ids)
    return ", ".join(f"{count_of(count, 'task')} of {bench}" for bench, count in counts.items())


def _read(keys: tuple[str, ...]) -> str:
    from evalkit.contracts.spec import EPISODE, EVERYTHING

    named = {EVERYTHING: "episode and all simulator state", EPISODE: "the planned episode"}
    return ", ".join(named.get(key, f"'{key}'") for key in keys)


def _counted(kinds: Any) -> str:
    """Return camera kinds in order, equal neighbours counted.

    Example:
        >>> _counted(("static", "static", "wrist"))
        '2 static, 1 wrist'
    """
    counts: list[list[Any]] = []
    for kind in kinds:
        if counts and counts[-1][1] == kind:
            counts[-1][0] += 1
        else:
            counts.append([1, kind])
    return ", ".join(f"{count} {kind}" for count, kind in counts)


def _present(plugin: Bench | PolicyPlugin) -> Iterator[Trait]:
    """Yield what of a plugin's needs is here and what is missing, if the plugin says so."""
    from evalkit.contracts.env import ExaminedBench, GlancedPlugin

    name, config_type = plugin.name, plugin.config_type
    if not isinstance(plugin, GlancedPlugin):
        if isinstance(plugin, ExaminedBench):  # a policy with `examine` too
            yield Trait("here", f"see `evalkit doctor {name}`", "yellow")
        return
    try:
        findings = plugin.glance(config_type())
    except Exception as error:  # a plugin is anyone's code
        yield Trait("here", f"not known: {error}", "yellow")
        return
    yield from (_trait(finding) for finding in findings)


def _trait(finding: Finding) -> Trait:
    text = f"{finding.what}: {finding.found}" if finding.found else finding.what
    if finding.ok:
        return Trait("here", text, "green")
    word, style = ("missing", "red") if finding.needed else ("absent", "yellow")
    return Trait(word, f"{text}; {finding.remedy}", style)


def _print_plugins(
    kind: str, names: list[str], load: Callable[[str], Any], describe: Callable[[Any], list[Trait]]
) -> None:
    out.print(kind, style="bold")
    for name in names:
        try:
            plugin = load(name)
        except EvalkitError as error:
            out.print(Text.assemble(f"{name}: ", (str(error), "red")), soft_wrap=True)
            continue
        out.print(f"{name}: {plugin.summary}", soft_wrap=True)
        _print_traits(describe(plugin))
    out.print()


def _print_traits(traits: list[Trait]) -> None:
    for trait in traits:
        out.print(Text.assemble((f"  {trait.word:<9} ", "dim"), (trait.text, trait.style)), soft_wrap=True)


def _print_keys(prefix: str, config_type: type) -> None:
    documented = [inspect.cleandoc(each.__doc__ or "") for each in reversed(config_type.__mro__)]
    meanings = {name: meaning for text in documented for name, meaning in field_meanings(text).items()}
    for entry in fields(config_type):
        default = getattr(config_type(), entry.name)
        shown = json.dumps(list(default) if isinstance(default, tuple) else default, separators=(",", ":"))
        out.print(f"key       {prefix}.{entry.name}={shown.strip(chr(34))}")
        if entry.name in meanings:
            meaning = re.sub(r"\bNone\b", "null", meanings[entry.name])
            out.print(f"          {meaning}", style="dim", soft_wrap=True)


def field_meanings(docstring: str) -> dict[str, str]:
    """Return what a docstring in Google form says about each attribute.

    Example:
        >>> field_meanings("Settings.\\n\\nAttributes:\\n    gl: Renderer,\\n        or auto.\\n    seed: Seed.")
        {'gl': 'Renderer, or auto.', 'seed': 'Seed.'}
    """
    meanings: dict[str, str] = {}
    name = ""
    for line in docstring.partition("Attributes:\n")[2].splitlines():
        if match := re.fullmatch(r"    (\w+): (.+)", line):
            name = match[1]
            meanings[name] = match[2]
        elif name and line.startswith("        "):
            meanings[name] += " " + line.strip()
        else:
            name = ""
    return meanings
