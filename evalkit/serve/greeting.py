"""What a policy server says first, and what both ends refuse before the first step.

In: the spec of a policy, metadata of a server, data of a peer. Out: a `Greeting`, dataclasses, refusals.
Read next: `messages.py`, everything that follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

from evalkit.contracts.errors import SpecMismatch
from evalkit.contracts.msgpack_arrays import BadMessage
from evalkit.contracts.spec import EnvSpec, PolicySpec, check, oracle_keys, reads_episode
from evalkit.contracts.types import ACTION_DIM

PROTOCOL = 1
"""Version of the extension; a client refuses a server of another one."""

KEY = "evalkit"
"""Key of what concerns the message itself."""

CAPABILITIES: tuple[str, ...] = ("reset", "infer", "prediction", "cancel", "given_actions", "past_rgb")

Typed = TypeVar("Typed")


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """What a server says about itself: its first message.

    Attributes:
        spec: Of the policy.
        width: Rows of every forward pass.
        provenance: What identifies the policy.
        capabilities: What the server can do beyond openpi's dialect.
        private: Whether requests may hold the planned episode and the simulator's state.
        protocol: Version of the extension.
    """

    spec: PolicySpec
    width: int = 1
    provenance: Mapping[str, str] = field(default_factory=dict)
    capabilities: tuple[str, ...] = CAPABILITIES
    private: bool = False
    protocol: int = PROTOCOL

    def to_wire(self) -> dict[str, Any]:
        """Return the metadata; the keys outside `evalkit` are those that other servers of openpi's dialect use."""
        spec = self.spec
        plain = {
            "policy": spec.policy_id,
            "action_horizon": spec.chunk_len,
            "action_dim": ACTION_DIM,
            "action_space": spec.action_layouts[0] if len(spec.action_layouts) == 1 else None,
            "image_resolution": spec.image_hw_px,
        }
        ours = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        known = {name: value for name, value in plain.items() if value is not None}
        return {**known, KEY: {**ours, "spec": asdict(spec), "provenance": dict(self.provenance)}}

    @classmethod
    def from_wire(cls, metadata: Any) -> Greeting | None:
        """Return what a server of ours says; None for a server that speaks openpi's dialect alone.

        Raises:
            BadMessage: If it cannot be read, or the version is another one.
        """
        ours = metadata.get(KEY) if isinstance(metadata, Mapping) else None
        if not isinstance(ours, Mapping):
            return None
        if ours.get("protocol") != PROTOCOL:
            raise BadMessage(
                f"the server speaks version {ours.get('protocol')} of evalkit's protocol, this client version "
                f"{PROTOCOL}; install the same version of evalkit on both sides"
            )
        return typed(cls, ours, "the server's metadata")


def typed(kind: type[Typed], data: Any, what: str) -> Typed:
    """Return a dataclass made of data of a peer; raises BadMessage, which names each mistake and where it stands."""
    from pydantic import TypeAdapter, ValidationError

    names = {entry.name for entry in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(data, Mapping) or set(data) - names:
        found = ", ".join(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
        raise BadMessage(f"{what} must hold some of {', '.join(sorted(names))}, got {found}"[:400])
    try:
        return TypeAdapter(kind).validate_python(dict(data))
    except ValidationError as error:
        mistakes = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:4]]
        raise BadMessage(f"{what} cannot be read: {'; '.join(mistakes)}") from error


def check_may_leave(spec: PolicySpec, name: str) -> None:
    """Raise SpecMismatch for a policy that reads what must not cross a network.

    Args:
        spec: Of the policy.
        name: Its name, for the message.
    """
    reads = [*(["the planned episode"] if reads_episode(spec) else [])]
    oracle = [key for key in oracle_keys(spec.privileged_keys) if key not in ("*", "episode")]
    if oracle:
        reads.append(f"the simulator's state ({', '.join(oracle)})")
    if reads:
        raise SpecMismatch(
            f"Policy '{name}' reads {' and '.join(reads)}, which a policy server is never sent: neither seed nor task "
            f"nor simulator state crosses a network. Run it in process: evalkit run --policy {name}."
        )


def check_env(env: EnvSpec, spec: PolicySpec) -> None:
    """Raise SpecMismatch unless the policy can run on an env whose task is not named; the plan has checked the task."""
    check(env, spec if reads_episode(spec) else replace(spec, env_ids=None))
