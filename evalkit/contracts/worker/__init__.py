"""The env process: messages, wire format, server and client.

In: nothing. Out: the package; it needs numpy and msgpack alone.
Read next: `messages.py`, then `client.py` and `server.py`, the two ends.
"""
