"""Speaks with the unmodified packages `openpi-client` and `msgpack-numpy`; runs in an interpreter that has them.

In: a command. Out: a server whose port is printed, or JSON on the standard output.
Read next: `tests/unit/test_remote_partner.py`, which runs it.

The server does what openpi's own does with these packages: metadata first, inference inside the event loop, a text
frame and a closed connection after an error.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import msgpack
import msgpack_numpy as xpolicylab_arrays
import numpy as np
import websockets.asyncio.server
from openpi_client import base_policy, image_tools, msgpack_numpy, websocket_client_policy


class Hold(base_policy.BasePolicy):
    """Answers with zeros, after some seconds the first time; fails at the third request of `fail`."""

    def __init__(self, mode: str, first_s: float) -> None:
        self._mode, self._first_s, self._count = mode, first_s, 0

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        if self._count == 1:
            time.sleep(self._first_s)
        if self._mode == "fail" and self._count == 3:
            raise ValueError("CUDA out of memory in the third request")
        if self._mode == "pose":
            return {"actions": np.zeros((8, 14))}
        assert obs["images"]["view_0"].dtype == np.uint8
        assert obs["state"].shape == (8,)
        assert isinstance(obs["prompt"], str)
        return {"actions": np.zeros((8, 7)), "scale": np.float32(0.5)}


async def serve(policy: base_policy.BasePolicy) -> None:
    """Serve until the process is ended."""

    async def handle(connection: Any) -> None:
        await connection.send(msgpack_numpy.packb({"served": "hold", "limits": np.ones(2)}))
        try:
            async for data in connection:
                started = time.monotonic()
                reply = policy.infer(msgpack_numpy.unpackb(data))
                timing = {"infer_ms": 1000 * (time.monotonic() - started)}
                await connection.send(msgpack_numpy.packb({**reply, "server_timing": timing}))
        except ValueError:
            await connection.send(traceback.format_exc())
            await connection.close(1011, "Internal server error. Traceback included in previous frame.")

    async with websockets.asyncio.server.serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await server.serve_forever()


def ask(url: str) -> None:
    """Ask our double as openpi's own client does, and print what came."""
    client = websocket_client_policy.WebsocketClientPolicy(host=url)
    reply = client.infer({"state": np.arange(3.0), "prompt": "p", "flag": np.float32(2)})
    actions = reply["actions"]
    found = {"metadata": client.get_server_metadata(), "shape": actions.shape, "dtype": str(actions.dtype)}
    print(json.dumps(found))


def act(url: str, source: str, target: str, count: str) -> None:
    """Send the arrays and texts of a file as an observation, and keep the actions that come; errors are printed."""
    held = np.load(source)
    observation = {name: held[name] if held[name].dtype.kind != "U" else str(held[name]) for name in held.files}
    client = websocket_client_policy.WebsocketClientPolicy(host=url)
    try:
        np.save(target, np.stack([client.infer(observation)["actions"] for _ in range(int(count))]))
        print(json.dumps({"error": None, "keys": sorted(client.get_server_metadata())}))
    except RuntimeError as error:
        print(json.dumps({"error": str(error)}))


def resize(source: str, target: str, height: str, width: str) -> None:
    """Resize the images of a file with openpi's `resize_with_pad`."""
    np.save(target, image_tools.resize_with_pad(np.load(source), int(height), int(width)))


def reencode(source: str, target: str) -> None:
    """Decode bytes with msgpack-numpy, as XPolicyLab does, and encode what came again."""
    found = msgpack.unpackb(Path(source).read_bytes(), raw=False, object_hook=xpolicylab_arrays.decode)
    Path(target).write_bytes(msgpack.packb(found, default=xpolicylab_arrays.encode, use_bin_type=True))


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "serve":
        asyncio.run(serve(Hold(arguments[0], float(arguments[1]))))
    else:
        commands: dict[str, Any] = {"ask": ask, "act": act, "resize": resize, "reencode": reencode}
        commands[command](*arguments)
