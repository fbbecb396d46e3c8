"""Policies served in this process, and what crosses their wire.

In: a policy. Out: a running server of ours with its URL; every message that a proxy passed on.
Read next: `tests/unit/test_serve_server.py` and `tests/unit/test_serve_client.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from evalkit import testing
from evalkit.contracts.msgpack_arrays import pack, unpack
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import OSC_DELTA_BASE, EnvSpec, PolicySpec
from evalkit.contracts.types import ACTION_DIM, PolicyReply, PolicyRequest, Prediction
from evalkit.serve.greeting import Greeting
from evalkit.serve.local import PolicyHost
from evalkit.serve.messages import observation_keys
from evalkit.serve.scheduler import Limits
from evalkit.serve.server import Listen, PolicyServer, serving

SPEC = PolicySpec(
    policy_id="told",
    action_layouts=(OSC_DELTA_BASE,),
    chunk_len=8,
    execute_steps=8,
    views=("static", "wrist"),
    image_hw_px=(16, 24),
    arms=("left",),
    predicts=("rgb",),
    num_future_frames=2,
)


@dataclass
class ToldPolicy:
    """Answers at once, unless the test tells it to do something else; its actions hold the noise seed.

    Attributes:
        spec: Its spec.
        acts: Called before each reply.
        imagines: Called before each prediction.
        asked: Requests, in order.
        resets: Episodes that began, in order.
    """

    spec: PolicySpec = SPEC
    acts: Callable[[PolicyRequest], object] = lambda _: None
    imagines: Callable[[PolicyRequest], object] = lambda _: None
    asked: list[PolicyRequest] = field(default_factory=list)
    resets: list[tuple[str, EnvSpec]] = field(default_factory=list)

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        self.resets.append((episode_id, env))

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        return [self._reply(request) for request in requests]

    def _reply(self, request: PolicyRequest) -> PolicyReply:
        self.asked.append(request)
        self.acts(request)
        actions = np.zeros((self.spec.chunk_len, ACTION_DIM), np.float32)
        actions[:, 0] = request.noise_seed % 1000 / 1000

        def prediction() -> Prediction:
            self.imagines(request)
            frames = np.stack([request.observation.rgb] * request.num_predicted_frames)
            return Prediction(rgb=frames, depth=None, proprio=None)

        return PolicyReply(actions=actions, details={"n": len(self.asked)}, prediction=prediction)


@contextmanager
def served(policy: Policy, *, provenance: Mapping[str, str] | None = None, **listen: Any) -> Iterator[PolicyServer]:
    """Serve a policy on a free port, or as the arguments say, until the block ends."""
    options = Listen(**{"port": 0, **listen})
    limits = Limits(max_jobs_per_client=options.limits.jobs, max_jobs=1024)
    greeting = Greeting(spec=policy.spec, provenance=provenance or {}, private=options.private)
    with PolicyHost(policy, limits) as host, serving(host, greeting, options) as server:
        yield server


def plain_message(spec: PolicySpec, index: int = 0) -> dict[str, Any]:
    """Return an observation as a client of openpi's dialect sends it."""
    seen = testing.noise_request(spec, index, 0).observation
    return {key: getattr(seen, key) for key in observation_keys(spec)}


class Peer:
    """A websocket client that sends what the test says; it reads the greeting first."""

    def __init__(self, url: str, **options: Any) -> None:
        from websockets.sync.client import connect

        self._open = connect(url, compression=None, max_size=None, proxy=None, **options)
        self.socket = self._open.__enter__()
        self.greeting = unpack(self.socket.recv(timeout=5))  # type: ignore[arg-type]

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.__exit__(None, None, None)

    def send(self, message: Any) -> None:
        self.socket.send(message if isinstance(message, bytes | str) else pack(message))

    def receive(self, timeout_s: float = 10.0) -> Any:
        """Return the next message; text as text."""
        data = self.socket.recv(timeout=timeout_s)
        return data if isinstance(data, str) else unpack(data)

    def ask(self, message: Any) -> Any:
        self.send(message)
        return self.receive()


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until a condition holds; fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


@dataclass
class Tap:
    """What a proxy passed on: messages to the server, and to the client without the server's first one."""

    url: str = ""
    to_server: list[bytes] = field(default_factory=list)
    to_client: list[bytes] = field(default_factory=list)


@contextmanager
def tapped(url: str) -> Iterator[Tap]:
    """Pass messages on between clients and a server, and keep them."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
    from websockets.sync.server import ServerConnection, serve

    tap = Tap()

    def pump(source: Any, target: Any, kept: list[bytes]) -> None:
        try:
            for data in source:
                kept.append(data if isinstance(data, bytes) else data.encode())
                target.send(data)
        except ConnectionClosed:
            pass
        finally:
            target.close()

    def handle(client: ServerConnection) -> None:
        with connect(url, compression=None, max_size=None, proxy=None, ping_interval=None) as upstream:
            client.send(upstream.recv())
            answers = threading.Thread(target=pump, args=(upstream, client, tap.to_client), daemon=True)
            answers.start()
            pump(client, upstream, tap.to_server)
            answers.join()

    with serve(handle, "127.0.0.1", 0, compression=None, max_size=None, ping_interval=None) as proxy:
        tap.url = f"ws://127.0.0.1:{proxy.socket.getsockname()[1]}"
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        yield tap
        proxy.shutdown()
        thread.join()


def seeded(policy_spec: PolicySpec, index: int, *, chunk_idx: int = 0, **changes: Any) -> PolicyRequest:
    """Return a request of noise with changes of its fields."""
    return replace(testing.noise_request(policy_spec, index, chunk_idx), **changes)


def socket_path(folder: Path) -> Path:
    """Return the path of a Unix socket, which may hold no more than about 100 letters."""
    return folder / "s"
