"""Text encoders: an instruction to text tokens.

In: nothing. Out: the package.
Read next: `encoders.py`, the protocol and the small encoders; `umt5.py`, the encoder of the release; `tokens.py`, their
output; `memory.py`, which stores it.
"""
