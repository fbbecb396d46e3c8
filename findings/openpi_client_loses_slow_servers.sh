#!/usr/bin/env bash
# What surprises: openpi-client waits for a slow policy server or loses its reply, depending on the version of websockets
# that pip happens to choose. Guess: it sets no time limit, so it waits for a first inference of 45 s (loading, compiling)
# with any version. Seen: with websockets 14.2 the actions come after 45 s. With websockets 15.0 the same code gets
# "keepalive ping timeout" in their place, at the moment when they are ready: from that version on the synchronous client
# pings every 20 s and waits 20 s for an answer, and a server that runs its policy inside the event loop, as openpi's does,
# answers no ping while it computes. The server is healthy, and the next inference would take milliseconds. openpi-client
# 0.1.2 asks for websockets>=11.0, offers no setting for pings, and does not connect again.
#
# Versions: openpi-client 0.1.2, websockets 14.2 and 15.0 (Python 3.11). It takes a minute.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/try.py" <<'PY'
import asyncio
import threading
import time

import numpy as np
import websockets
import websockets.asyncio.server
from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy

SLOW_S = 45
ports = []


async def serve():
    async def handle(connection):
        await connection.send(msgpack_numpy.packb({}))
        async for _ in connection:
            time.sleep(SLOW_S)  # a policy inside the event loop, as in openpi's WebsocketPolicyServer
            await connection.send(msgpack_numpy.packb({"actions": np.zeros((50, 14))}))

    async with websockets.asyncio.server.serve(handle, "127.0.0.1", 0) as server:
        ports.append(server.sockets[0].getsockname()[1])
        await server.serve_forever()


threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
while not ports:
    time.sleep(0.1)
client = WebsocketClientPolicy(host="127.0.0.1", port=ports[0])
started = time.monotonic()
try:
    outcome = f"actions {client.infer({})['actions'].shape}"
except Exception as error:
    outcome = f"{type(error).__name__}: {error}"
print(f"websockets {websockets.__version__}: after {time.monotonic() - started:.0f} s: {outcome}", flush=True)
PY
for version in 14.2 15.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install --quiet openpi-client==0.1.2 typing_extensions==4.16.0 numpy==1.26.4 "websockets==$version"
    "$work/$version/bin/python" "$work/try.py" > "$work/$version.txt" 2>/dev/null &
done
wait
cat "$work/14.2.txt" "$work/15.0.txt"
grep -q "after 4[5-9] s: actions (50, 14)" "$work/14.2.txt"
grep -q "after 4[0-9] s: ConnectionClosedError: .*keepalive ping timeout" "$work/15.0.txt"
