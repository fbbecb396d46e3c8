"""The verb `serve`: a policy behind a websocket.

In: a policy with its settings, an address. Out: replies to clients, until Ctrl-C.
Read next: `evalkit/serve/server.py`, which serves; docs/serving.md, the messages.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from evalkit.cli.list import needed_text, predicted_text
from evalkit.console import out
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.text import count_of

if TYPE_CHECKING:
    from evalkit.contracts.bound import BoundPolicy
    from evalkit.serve.greeting import Greeting
    from evalkit.serve.local import PolicyHost
    from evalkit.serve.server import Listen, PolicyServer

TOKEN_VARIABLE = "EVALKIT_SERVE_TOKEN"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
STATUS_EVERY_S = 10.0
LEAST_TOKEN_LENGTH = 8
AUTO = "auto"
WIDTHS = (1, 2, 4, 8, 16)
"""Widths that `--width auto` times."""


def serve(
    policy: Annotated[
        str, typer.Option("--policy", metavar="NAME", help="Name of a policy, or module:attribute of a policy plugin.")
    ] = "xwam",
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Network address to listen on; 0.0.0.0 for every one.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="Port to listen on; 0 for a free one.", min=0, max=65535)
    ] = 8000,
    unix: Annotated[
        Path | None,
        typer.Option(
            "--unix",
            metavar="PATH",
            help="Listen on a Unix socket that only this user can connect to, in place of --host and --port.",
            show_default=False,
        ),
    ] = None,
    path: Annotated[
        str | None,
        typer.Option(
            "--path", metavar="/PATH", help="Serve at this path alone. [default: at any path]", show_default=False
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help=f"File with a token that clients must send: at least {LEAST_TOKEN_LENGTH} letters, digits and signs "
            f"without spaces, for example of `openssl rand -hex 24`. [default: that of {TOKEN_VARIABLE}, or none]",
            show_default=False,
        ),
    ] = None,
    width: Annotated[
        str | None,
        typer.Option(
            "--width",
            metavar="N|auto",
            help="Rows of every forward pass: so many requests can share it. The same as policy.NAME.width=N. "
            "auto times passes of several widths on this machine and takes the best one.",
            show_default=False,
        ),
    ] = None,
    max_clients: Annotated[
        int, typer.Option("--max-clients", metavar="N", help="Connections at a time.", min=1, max=4096)
    ] = 32,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be served and how to connect; load nothing.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Hydra overrides of the policy's settings, for example `policy.xwam.checkpoint=nano`.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve a policy to evalkit and to clients of openpi.

    Clients connect to a websocket. `evalkit run --policy remote` gets actions and predictions as in process; the
    package openpi-client gets actions. Neither the seed nor the task of an episode is part of a message.
    docs/serving.md describes the messages, the limits and the token. Ctrl-C ends the server.

    Examples:

    - `evalkit serve --policy xwam`
    - `evalkit serve --policy xwam --port 0 --dry-run`
    - `evalkit serve --policy xwam --unix policy.sock --max-clients 4`
    - `evalkit serve --policy xwam --width auto`
    - `evalkit serve --policy xwam --host 0.0.0.0 --token-file token policy.xwam.checkpoint=nano`
    """
    from evalkit.serve.server import Listen, check_listen

    overrides = overrides or []
    if width == AUTO and not dry_run:
        width = str(_best_width(policy, overrides))
    bound = _bound(policy, overrides, width)
    listen = Listen(
        host=host, port=port, unix=unix, path=_path(path), token=_token(token_file), max_clients=max_clients
    )
    check_listen(listen)
    greeting = _greeting(bound)
    _print_plan(greeting, listen, token_file, measured=width == AUTO)
    if dry_run:
        _print_connect(_planned_url(listen), listen, token_file)
        return
    from evalkit.serve.local import PolicyHost
    from evalkit.serve.scheduler import Limits

    limits = Limits(
        max_jobs=listen.limits.jobs * max_clients,
        max_jobs_per_client=listen.limits.jobs,
        max_uncollected=listen.limits.predictions * max_clients,
    )
    with out.status(f"loading {policy}"):
        loaded = bound.load()
    with PolicyHost(loaded, limits) as policy_host:
        asyncio.run(_serve(policy_host, greeting, listen, token_file))


def _bound(name: str, overrides: list[str], width: str | None) -> BoundPolicy:
    """Return the policy with its settings.

    Raises:
        BadConfig: If it has no width, or the width is no number.
    """
    from evalkit.config import bind_policy
    from evalkit.contracts.plugins import load_policy

    if width is not None:
        plugin = load_policy(name)
        if "width" not in plugin.config_type.__dataclass_fields__:
            raise BadConfig(f"--width cannot be used: policy '{plugin.name}' answers one request at a time.")
        if width != AUTO:
            if not width.isdecimal():
                raise BadConfig(f"--width must be a number of rows or auto, got '{width}'.")
            overrides = [*overrides, f"policy.{plugin.name}.width={width}"]
    return bind_policy(name, overrides)


def _best_width(name: str, overrides: list[str]) -> int:
    """Time passes of each of `WIDTHS` and return the best width; the policy is loaded for each.

    Raises:
        BadConfig: If the policy has no width.
        EvalkitError: If it cannot be loaded.
    """
    from evalkit.serve.width import choose_width
    from evalkit.testing.requests import env_for, noise_request

    _bound(name, overrides, AUTO).require()

    def policy_of(width: int) -> Any:
        policy = _bound(name, overrides, str(width)).load()
        policy.reset(request.episode_id, env_for(policy.spec))
        return policy

    request = noise_request(_bound(name, overrides, AUTO).spec(), 0, 0)
    with out.status("timing passes"):
        chosen, timed = choose_width(policy_of, request, WIDTHS)
    for each in timed:
        mark = " <- taken" if each is chosen else ""
        text = f"{each.width:>2} rows: {each.pass_s * 1e3:.1f} ms a pass, {each.rows_per_s:.1f} rows/s{mark}"
        out.print(Text(text), soft_wrap=True)
    return chosen.width


def _greeting(bound: BoundPolicy) -> Greeting:
    """Return what the server will state; raises SpecMismatch for a policy that reads what must not cross a network."""
    from evalkit.serve.greeting import Greeting, check_may_leave

    spec = bound.spec()
    check_may_leave(spec, bound.name)
    bound.require()
    return Greeting(spec=spec, width=getattr(bound.config, "width", 1), provenance=bound.provenance())


def _path(path: str | None) -> str | None:
    if path is not None and not path.startswith("/"):
        raise BadConfig(f"--path must begin with a slash, got '{path}'.")
    return path


def _token(file: Path | None) -> str | None:
    """Return the token of a file or of the environment; None if there is none.

    Raises:
        BadConfig: If the file cannot be read, or holds too short a token.
    """
    where = TOKEN_VARIABLE if file is None else str(file)
    try:
        token = os.environ.get(TOKEN_VARIABLE) if file is None else file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"--token-file {file} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if token is None or (file is None and not token):
        return None
    if len(token) < LEAST_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise BadConfig(
            f"{where} must hold a token of at least {LEAST_TOKEN_LENGTH} letters, digits and signs without spaces; "
            f"`openssl rand -hex 24` makes one."
        )
    return token


def _print_plan(greeting: Greeting, listen: Listen, token_file: Path | None, *, measured: bool) -> None:
    """Print what is served, and to whom; `measured` if the width will be known once passes are timed."""
    spec = greeting.spec
    layouts = " or ".join(spec.action_layouts)
    lines = [
        ("policy", spec.policy_id),
        ("gives", f"{spec.chunk_len} actions of {layouts}, of which {spec.execute_steps} are executed"),
        ("predicts", predicted_text(spec)),
        ("needs", needed_text(spec)),
        ("width", "to be measured" if measured else f"{count_of(greeting.width, 'request')} in a forward pass"),
    ]
    for word, text in lines:
        out.print(Text.assemble((f"{word:<9}", "dim"), text), soft_wrap=True)
    if listen.unix is None and listen.host not in LOOPBACK and listen.token is None:
        warning = (
            f"Whoever reaches {listen.host} can use the policy, and nothing is encrypted. Set a token (--token-file), "
            "or listen on 127.0.0.1 behind an SSH tunnel."
        )
        out.print(Text(warning, style="yellow"), soft_wrap=True)
    if token_file is not None and token_file.stat().st_mode & 0o077:
        warning = f"Other users of this machine can read the token: chmod 600 {token_file}."
        out.print(Text(warning, style="yellow"), soft_wrap=True)


def _planned_url(listen: Listen) -> str:
    if listen.unix is not None:
        return f"unix://{listen.unix.absolute()}"
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    return f"ws://{host}:{listen.port or 'PORT'}{listen.path or ''}"


def _print_connect(url: str, listen: Listen, token_file: Path | None) -> None:
    """Print the address and lines to copy."""
    is_network = listen.unix is None
    if is_network and listen.host in ("0.0.0.0", "::"):
        url = url.replace(listen.host if listen.host != "::" else "[::]", "THIS_MACHINE")
    out.print(Text.assemble(("address  ", "dim"), (url, "bold")), soft_wrap=True)
    key = "" if listen.token is None else f"EVALKIT_REMOTE_API_KEY=$(cat {token_file or 'TOKEN_FILE'}) "
    out.print(
        Text.assemble(("connect  ", "dim"), f"{key}evalkit run --policy remote policy.remote.url={url}"), soft_wrap=True
    )
    if is_network:
        api_key = "" if listen.token is None else ", api_key=TOKEN"
        client = f'openpi_client.websocket_client_policy.WebsocketClientPolicy("{url}"{api_key}).infer(observation)'
        out.print(Text.assemble(("         ", "dim"), client), soft_wrap=True)


async def _serve(host: PolicyHost, greeting: Greeting, listen: Listen, token_file: Path | None) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    from evalkit.serve.server import PolicyServer

    server, stop, loop = PolicyServer(host, greeting, listen), asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    status = asyncio.create_task(_print_status(server, host)) if out.is_terminal else None
    try:
        await server.run(stop, lambda url: _print_connect(url, listen, token_file))
    finally:
        if status is not None:
            status.cancel()
    out.print(f"Stopped after {count_of(server.traffic.requests, 'request')}.")


async def _print_status(server: PolicyServer, host: PolicyHost) -> None:
    """Print a line at intervals in which something was asked."""
    with suppress(asyncio.CancelledError):
        before, since_s = server.traffic.requests, time.monotonic()
        while True:
            await asyncio.sleep(STATUS_EVERY_S)
            traffic, now_s = server.traffic, time.monotonic()
            load = host.load()
            if traffic.requests > before or load.under_way:
                rate = (traffic.requests - before) / (now_s - since_s)
                out.print(
                    f"{rate:.1f} requests/s, {load.under_way} under way, "
                    f"{count_of(traffic.clients, 'client')}, {count_of(traffic.refused, 'error')} so far"
                )
            before, since_s = traffic.requests, now_s
