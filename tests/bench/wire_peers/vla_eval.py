"""vla-eval's side of the wire's benchmark: its own server and client, with images sent raw.

In: `serve`, or `ask URL`. Out: the URL; or `rounds.py`'s lines.
Read next: `rounds.py`. Runs in an interpreter that has vla-eval 0.8.0 (../wire.py says how to make one).
"""

import asyncio
import functools
import sys
from typing import Any

sys.path.append(sys.path.pop(0))  # this file has the package's name

import anyio
import numpy as np
import rounds
from vla_eval.connection import Connection
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.model_servers.serve import serve_async
from vla_eval.protocol.numpy_codec import set_image_format


class NoOp(PredictModelServer):
    """Looks at nothing, and holds the robot."""

    def __init__(self) -> None:
        super().__init__()
        self.actions = np.zeros((rounds.CHUNK, rounds.COLUMNS), np.float32)

    def predict(self, obs: Any, ctx: Any) -> Any:
        return {"actions": self.actions}


async def serve() -> None:
    """Serve until the process is ended."""
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(functools.partial(serve_async, NoOp(), "127.0.0.1", 0))
        print(f"ws://127.0.0.1:{port}", flush=True)


def ask(url: str) -> None:
    """Ask with vla-eval's own client, in an episode."""
    set_image_format("raw")
    loop, views = asyncio.new_event_loop(), rounds.images()
    connection = Connection(url)
    loop.run_until_complete(connection.connect())
    loop.run_until_complete(connection.start_episode({"task": {"name": "bench"}}))
    images = {f"camera{i}": view for i, view in enumerate(views)}
    observation = {"images": images, "state": rounds.state(), "task_description": rounds.SENTENCE}
    rounds.answer(lambda: loop.run_until_complete(connection.act(observation))["actions"])


if __name__ == "__main__":
    asyncio.run(serve()) if sys.argv[1] == "serve" else ask(sys.argv[2])
