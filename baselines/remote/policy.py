"""The policy `remote`: a policy in a server of its own, driven as an adapter says.

In: requests of evalkit, a URL, an adapter. Out: chunks of actions, in the env's layout.
Read next: `client.py`, which keeps the connection; `convert.py`, `plausible.py` and `starts.py` for the numbers;
`served.py` for servers of evalkit, which need no adapter.

The server sees observation and sentence; neither the episode's seed nor the task's name is part of any message.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from importlib import metadata as packages
from importlib.util import find_spec
from typing import Any

import numpy as np

from baselines.remote import adapter as adapters
from baselines.remote.adapter import Adapter
from baselines.remote.client import Client, NoReply, Patience
from baselines.remote.convert import env_actions, message
from baselines.remote.dialects import ServerError
from baselines.remote.plausible import check_metadata, check_numbers
from baselines.remote.probe import probe_observation
from baselines.remote.served import greeting_at, load_served, served_provenance, served_spec
from baselines.remote.settings import RemoteConfig, address_of, key_advice
from baselines.remote.starts import FirstActions, check_start
from evalkit.contracts.env import Finding
from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError
from evalkit.contracts.msgpack_arrays import BadMessage
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import PolicyReply, PolicyRequest
from evalkit.serve.connection import KeyRefused, Unreachable
from evalkit.serve.greeting import KEY, Greeting

PAGE = "docs/remote.md"

DEFAULT_ADAPTER = "evalkit-osc"


class RemotePlugin:
    """The entry point `remote`; its import loads neither websockets nor msgpack.

    Args:
        bench: The bench of the plan; None if it is not known. An adapter for other benches is refused.
    """

    name = "remote"
    summary = (
        "A policy behind a websocket: of `evalkit serve` (no adapter; actions, predictions), or of openpi, vLLM-Omni "
        "or XPolicyLab (with an adapter; actions alone); see docs/serving.md, docs/remote.md"
    )
    config_type = RemoteConfig

    def __init__(self, bench: str | None = None) -> None:
        self._bench = bench

    def for_bench(self, bench: str) -> RemotePlugin:
        """Return the plugin that refuses adapters for other benches."""
        return RemotePlugin(bench)

    def spec(self, config: RemoteConfig) -> PolicySpec:
        """Return what a server of evalkit states, or what the adapter says; with an adapter no server is asked.

        Raises:
            BadConfig: If the adapter is for other benches, or the step counts do not fit.
        """
        if (greeting := _ours(config)) is not None:
            return served_spec(config, greeting)
        adapter = _adapter(config)
        if self._bench is not None and self._bench not in adapter.benches:
            raise BadConfig(
                f"The adapter '{adapter.name}' is for {' and '.join(adapter.benches)}, not for {self._bench}; "
                f"{_adapters_of(self._bench)}. See {PAGE}."
            )
        chunk_len, execute_steps = _steps(config, adapter)
        return PolicySpec(
            policy_id=f"remote/{config.label or adapter.name}",
            action_layouts=(adapter.actions.layout,),
            chunk_len=chunk_len,
            execute_steps=execute_steps,
            views=adapter.env.views,
            image_hw_px=adapter.env.image_hw_px,
            arms=adapter.env.arms,
            control_hz=adapter.env.control_hz,
            privileged_keys=adapter.state_names,
        )

    def provenance(self, config: RemoteConfig) -> dict[str, str]:
        """Return what identifies server and adapter; the server is asked for its metadata.

        Raises:
            EvalkitError: If it does not answer.
        """
        if (greeting := _ours(config)) is not None:
            return served_provenance(config, greeting)
        adapter = _adapter(config)
        with _client(config, adapter) as client:
            metadata = _hello(client, config)
        seed = (
            f"the request's noise seed is sent as '{adapter.seed_key}'"
            if adapter.seed_key
            else "the server's own: it is sent no seed, so a second run may give other actions"
        )
        return {
            "server": f"{config.url} ({adapter.dialect}); {adapter.server}",
            "server metadata": f"sha256 {metadata_sha256(metadata)[:16]}: {_shortened(metadata)}",
            "adapter": f"{adapter.name}, sha256 {adapter.sha256[:16]}",
            "adapter's sources": "; ".join(map(str, adapter.sources)),
            "noise": seed,
            "checked": "shape, type and range of a probe's actions, "
            + ("motion from the measured states" if config.check_motion else "not their motion (check_motion=false)")
            + "; what their numbers mean beyond this is the server's word",
            "packages": ", ".join(f"{name} {packages.version(name)}" for name in ("websockets", "msgpack")),
        }

    def glance(self, config: RemoteConfig) -> list[Finding]:
        """Return whether the packages of its wire are installed; the weights are the server's."""
        server = Finding(what="weights", ok=True, found=f"those of the server at {config.url}", remedy="")
        return [*_packages(_adapter(config)), server]

    def examine(self, config: RemoteConfig) -> list[Finding]:
        """Return what the adapter needs on this machine, and whether the server answers."""
        self.spec(config)
        adapter = _adapter(config)
        findings = _packages(adapter)
        if (greeting := _ours(config)) is not None:
            found = f"{greeting.spec.policy_id}, served by evalkit with width {greeting.width}"
            return [*findings, Finding(what=f"server at {config.url}", ok=True, found=found, remedy="")]
        findings.append(
            Finding(
                what="adapter",
                ok=True,
                found=f"{adapter.name} ({adapter.policy} on {', '.join(adapter.benches)}, {adapter.dialect})",
                remedy="",
            )
        )
        return [*findings, _server(config, adapter)] if all(f.ok for f in findings) else findings

    def make(self, config: RemoteConfig) -> Policy:
        """Return the policy, connected; another server has answered a probe with actions that its adapter can mean.

        Raises:
            EvalkitError: If it does not answer, or answers with something else.
        """
        if (greeting := _ours(config)) is not None:
            return load_served(config, address_of(config), greeting)
        adapter, spec = _adapter(config), self.spec(config)
        policy = RemotePolicy(spec, adapter, _client(config, adapter), check_motion=config.check_motion)
        metadata = _hello(policy.client, config)
        try:
            check_metadata(metadata, adapter, chunk_len=spec.chunk_len)
            policy.probe()
        except (BadMessage, ServerError, NoReply, Unreachable) as error:
            policy.client.close()
            raise EvalkitError(_probe_failed(error, config, adapter)) from error
        return policy


class RemotePolicy:
    """A connected server; satisfies `evalkit.contracts.policy.Policy`."""

    def __init__(self, spec: PolicySpec, adapter: Adapter, client: Client, *, check_motion: bool = True) -> None:
        self.spec, self.client = spec, client
        self._adapter, self._check_motion = adapter, check_motion
        self._first_actions: dict[str, FirstActions] = {}
        self._current: str | None = None

    def probe(self) -> None:
        """Ask for actions at an observation that no env made, and check their form."""
        observation = probe_observation(self._adapter)
        body = message(self._adapter, observation, session="probe", noise_seed=0)
        self.client.begin("probe")
        values = self.client.ask(body, session="probe", step=0, may_repeat=True).values
        actions = env_actions(self._adapter, values, chunk_len=self.spec.chunk_len)
        check_numbers(actions, self._adapter)

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        """Tell the server that an episode begins, if the adapter says so.

        Raises:
            EpisodeFault: Blames the policy: the server does not answer, or the cameras are not the adapter's.
        """
        cameras = self._adapter.env.cameras
        known = env.env_id.partition("/")[0] in self._adapter.benches
        if known and cameras is not None and tuple(camera.name for camera in env.cameras) != cameras:
            given = ", ".join(camera.name for camera in env.cameras)
            raise EpisodeFault(
                "policy", f"The adapter '{self._adapter.name}' needs the cameras {', '.join(cameras)}, got {given}."
            )
        self._current = episode_id
        self._first_actions[episode_id] = FirstActions()
        try:
            self.client.begin(episode_id)
        except (ServerError, NoReply, Unreachable, BadMessage) as error:
            raise _fault(error, self.client.url) from error

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        """Return one reply per request, in order; each is sent by itself."""
        return [self._infer_one(request) for request in requests]

    def _infer_one(self, request: PolicyRequest) -> PolicyReply:
        adapter, observation = self._adapter, request.observation
        if adapter.keeps_state and self._current != request.episode_id:
            raise EpisodeFault(
                "policy",
                f"The server at {self.client.url} remembers one episode at a time, and another one has begun since; "
                "set run.workers=1.",
            )
        started = time.perf_counter()
        body = message(adapter, observation, session=request.episode_id, noise_seed=request.noise_seed)
        sent = time.perf_counter()
        try:
            answer = self.client.ask(
                body,
                session=request.episode_id,
                step=request.chunk_idx,
                may_repeat=not adapter.keeps_state or request.chunk_idx == 0,
            )
            received = time.perf_counter()
            actions = env_actions(adapter, answer.values, chunk_len=self.spec.chunk_len)
            self._check(request, actions)
        except (ServerError, NoReply, Unreachable, BadMessage) as error:
            raise _fault(error, self.client.url) from error
        both_ms = (received - sent) * 1e3
        server_ms = answer.server_ms
        spent = {"wire_and_server": both_ms}
        if server_ms is not None and 0 <= server_ms <= both_ms:
            spent = {"wire": both_ms - server_ms, "server": server_ms}
        return PolicyReply(
            actions=actions,
            timings_ms={"adapt": (sent - started + time.perf_counter() - received) * 1e3, **spent},
            details={"reconnections": self.client.reconnections} if self.client.reconnections else {},
        )

    def _check(self, request: PolicyRequest, actions: np.ndarray) -> None:
        """Raise BadMessage if a chunk's actions cannot be what the adapter says."""
        if request.chunk_idx == 0:
            check_numbers(actions, self._adapter)
        if not self._check_motion:
            return
        check_start(actions, self._adapter, request.observation)
        if (first := self._first_actions.get(request.episode_id)) is not None:
            first.add(actions[: self.spec.execute_steps], self._adapter)
            if first.is_complete:
                del self._first_actions[request.episode_id]


def _adapter(config: RemoteConfig) -> Adapter:
    """Return the adapter of the settings; raises as `adapters.load` does."""
    return adapters.load(config.adapter or DEFAULT_ADAPTER)


def _ours(config: RemoteConfig) -> Greeting | None:
    """Return what a server of evalkit states, where no adapter is named; None for any other server."""
    return greeting_at(address_of(config)) if config.adapter is None else None


def metadata_sha256(metadata: Mapping[str, Any]) -> str:
    """Return the hash of a server's metadata; the order of its keys does not matter.

    Example:
        >>> metadata_sha256({"a": 1, "b": np.zeros(2)}) == metadata_sha256({"b": np.zeros(2), "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(metadata, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else repr(value)


def _shortened(metadata: Mapping[str, Any]) -> str:
    text = json.dumps(metadata, sort_keys=True, default=_plain) if metadata else "empty"
    return text if len(text) <= 200 else f"{text[:200]}..."


def _steps(config: RemoteConfig, adapter: Adapter) -> tuple[int, int]:
    """Return chunk length and executed steps; a chunk that a setting shortens is executed no farther than its end."""
    chunk_len = config.chunk_len or adapter.actions.chunk_len
    execute_steps = config.execute_steps or min(adapter.actions.execute_steps, chunk_len)
    if execute_steps > chunk_len:
        raise BadConfig(
            f"policy.remote.execute_steps={execute_steps} is more than a reply of '{adapter.name}' holds ({chunk_len})."
        )
    return chunk_len, execute_steps


def _client(config: RemoteConfig, adapter: Adapter, connect_s: float | None = None) -> Client:
    """Return a client that is not connected yet; `connect_s` limits further attempts in place of the setting."""
    limit_s = config.connect_timeout_s if connect_s is None else connect_s
    patience = Patience(connect_s=limit_s, reply_s=config.reply_timeout_s, attempts=config.attempts)
    return Client(address_of(config), adapter, patience)


def _hello(client: Client, config: RemoteConfig) -> Mapping[str, Any]:
    """Return the server's metadata; raises EvalkitError if it does not answer."""
    try:
        metadata = client.metadata()
        if config.adapter is None and KEY in metadata:
            raise Unreachable("a policy server of evalkit has started there meanwhile; run the same command again")
        return metadata
    except KeyRefused as error:
        client.close()
        advice = key_advice(address_of(config))
        raise EvalkitError(f"The server at {config.url} cannot be used: {error}; {advice}.") from error
    except (Unreachable, NoReply, ServerError, BadMessage) as error:
        client.close()
        raise EvalkitError(
            f"No server of a policy answers at {config.url}: {_said(error).rstrip('.')}. Start it, or give its address "
            f"with policy.remote.url; `evalkit doctor remote policy.remote.url={config.url}` tries again."
        ) from error


def _probe_failed(error: Exception, config: RemoteConfig, adapter: Adapter) -> str:
    """Return the sentence for a server whose answer to the probe is not what its adapter says."""
    said = f"{'answers a probe with an error' if isinstance(error, ServerError) else 'fails a probe'}: {_said(error)}"
    advice = (
        f"Nothing was executed. Choose the adapter that fits the server (policy.remote.adapter; {PAGE} lists them), or "
        f"set policy.remote.chunk_len to the number of actions of its replies."
    )
    return f"The server at {config.url} {said.rstrip('.')} (adapter '{adapter.name}'). {advice}"


def _fault(error: Exception, url: str) -> EpisodeFault:
    """Return the fault of the policy that an error of the server is; a lost server is tried again."""
    if isinstance(error, ServerError):
        return EpisodeFault("policy", f"The server at {url} answered with an error: {error.sentence.rstrip('.')}.")
    if isinstance(error, BadMessage):
        return EpisodeFault("policy", f"The server at {url} broke its form: {str(error).rstrip('.')}.")
    return EpisodeFault("policy", f"The server at {url} gave no reply: {str(error).rstrip('.')}.", retriable=True)


def _said(error: Exception) -> str:
    """Return what an error says, on one line."""
    return error.sentence if isinstance(error, ServerError) else str(error)


def _packages(adapter: Adapter) -> list[Finding]:
    """Return whether the packages are installed that an adapter needs."""
    needed = [("websockets", "websockets"), *([("PIL", "pillow")] if adapter.resizes else [])]
    return [_package(module, package) for module, package in needed]


def _package(module: str, package: str) -> Finding:
    found = packages.version(package) if find_spec(module) is not None else ""
    return Finding(what=package, ok=bool(found), found=found, remedy="pip install -c constraints.txt -e '.[remote]'")


def _server(config: RemoteConfig, adapter: Adapter) -> Finding:
    """Return whether the server answers one attempt to connect, and what it says about itself."""
    remedy = "start the server, or give its address with policy.remote.url"
    try:
        with _client(config, adapter, connect_s=0.0) as client:
            metadata = client.metadata()
            check_metadata(metadata, adapter, chunk_len=_steps(config, adapter)[0])
    except (Unreachable, NoReply, ServerError, BadMessage) as error:
        if isinstance(error, BadMessage):
            remedy = f"choose the adapter that fits the server ({PAGE})"
        elif isinstance(error, KeyRefused):
            remedy = key_advice(address_of(config))
        return Finding(what=f"server at {config.url}", ok=False, found=_said(error), remedy=remedy)
    return Finding(what=f"server at {config.url}", ok=True, found=f"metadata {_shortened(metadata)}", remedy=remedy)


def _adapters_of(bench: str) -> str:
    """Return which adapters a bench has, as part of a sentence."""
    known = [name for name in adapters.names() if bench in adapters.load(name).benches]
    return f"adapters for {bench}: {', '.join(known)}" if known else f"no adapter is for {bench}"
