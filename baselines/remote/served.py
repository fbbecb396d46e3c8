"""The policy `remote` against a policy server of evalkit: no adapter, and predictions too.

In: the settings of `remote`. Out: what such a server states, its spec, its policy; None for other servers.
Read next: `evalkit/serve/client.py`, which asks it; `policy.py` for servers of other programs.

Whether a server is one of ours stands in its first message. It is looked up once for each URL, so that the spec of a
plan and the policy that carries it out agree.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from importlib import metadata as packages

from baselines.remote.settings import RemoteConfig, key_advice
from evalkit.contracts.errors import BadConfig, EvalkitError
from evalkit.contracts.msgpack_arrays import BadMessage
from evalkit.contracts.spec import PolicySpec
from evalkit.serve.client import ServedPolicy, TimeLimits, read_greeting
from evalkit.serve.connection import Address, Connection, KeyRefused, Lost, Slow, Unreachable
from evalkit.serve.greeting import Greeting

GREETING_S = 5.0
"""Time limit to connect and to read the first message, which a server of ours sends at once."""


@lru_cache(maxsize=64)
def greeting_at(address: Address) -> Greeting | None:
    """Return what a policy server of ours states; None if another one answers, or none.

    Raises:
        EvalkitError: If the server is ours and speaks another version, or it refuses the API key.
    """
    try:
        connection = Connection(replace(address, timeout_s=min(address.timeout_s, GREETING_S)))
    except KeyRefused as error:
        raise EvalkitError(f"The server at {address.url} cannot be used: {error}; {key_advice(address)}.") from error
    except Unreachable:
        return None
    try:
        return read_greeting(connection, GREETING_S)
    except (Lost, Slow):
        return None
    except BadMessage as error:
        raise EvalkitError(f"The server at {address.url} cannot be used: {error}.") from error
    finally:
        connection.close()


def served_spec(config: RemoteConfig, greeting: Greeting) -> PolicySpec:
    """Return the spec of a server's policy, under the label and with the executed steps of the settings.

    Raises:
        BadConfig: If a setting does not fit the policy.
    """
    spec = greeting.spec
    if config.chunk_len not in (None, spec.chunk_len):
        raise BadConfig(
            f"policy.remote.chunk_len={config.chunk_len} cannot be used: the policy at {config.url} replies with "
            f"{spec.chunk_len} actions; policy.remote.execute_steps says how many of them are executed."
        )
    if config.execute_steps is not None and config.execute_steps > spec.chunk_len:
        raise BadConfig(
            f"policy.remote.execute_steps={config.execute_steps} is more than a reply of the policy at {config.url} "
            f"holds ({spec.chunk_len})."
        )
    policy_id = f"remote/{config.label}" if config.label else spec.policy_id
    return replace(spec, policy_id=policy_id, execute_steps=config.execute_steps or spec.execute_steps)


def served_provenance(config: RemoteConfig, greeting: Greeting) -> dict[str, str]:
    """Return what the server states about its policy, and where it is."""
    names = ("websockets", "msgpack")
    return {
        **greeting.provenance,
        "server": f"{config.url} (evalkit, protocol {greeting.protocol}, width {greeting.width})",
        "packages of the client": ", ".join(f"{name} {packages.version(name)}" for name in names),
    }


def load_served(config: RemoteConfig, address: Address, greeting: Greeting) -> ServedPolicy:
    """Return the policy, connected.

    Raises:
        EvalkitError: If the server does not answer any more, or serves another policy now.
    """
    limits = TimeLimits(connect_s=config.connect_timeout_s, reply_s=config.reply_timeout_s)
    policy = ServedPolicy(address, limits)
    if policy.greeting != greeting:
        policy.close()
        raise EvalkitError(
            f"The server at {config.url} serves another policy than a moment ago ({policy.greeting.spec.policy_id}); "
            "run the same command again."
        )
    policy.spec = served_spec(config, greeting)
    return policy
