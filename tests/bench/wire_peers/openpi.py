"""openpi's side of the wire's benchmark: a minimal server of the package `openpi-client`, and its own client.

In: `serve`, or `ask URL`. Out: the URL; or `rounds.py`'s lines.
Read next: `rounds.py`. Runs in an interpreter that has openpi-client (../wire.py says how to make one).
"""

import asyncio
import sys
import time
from typing import Any

import numpy as np
import rounds
import websockets.asyncio.server
from openpi_client import msgpack_numpy, websocket_client_policy


async def serve() -> None:
    """Do what openpi's own server does: metadata first, inference inside the event loop."""
    actions, packer = np.zeros((rounds.CHUNK, rounds.COLUMNS), np.float32), msgpack_numpy.Packer()

    async def handle(connection: Any) -> None:
        await connection.send(packer.pack({}))
        async for data in connection:
            started = time.monotonic()
            msgpack_numpy.unpackb(data)
            timing = {"infer_ms": (time.monotonic() - started) * 1e3}
            await connection.send(packer.pack({"actions": actions, "server_timing": timing}))

    async with websockets.asyncio.server.serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        print(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}", flush=True)
        await server.serve_forever()


def ask(url: str) -> None:
    """Ask with openpi's own client."""
    client = websocket_client_policy.WebsocketClientPolicy(host=url)
    observation = {"rgb": rounds.images(), "state": rounds.state(), "prompt": rounds.SENTENCE}
    rounds.answer(lambda: client.infer(observation)["actions"])


if __name__ == "__main__":
    asyncio.run(serve()) if sys.argv[1] == "serve" else ask(sys.argv[2])
