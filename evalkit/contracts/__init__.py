"""The contracts between envs, policies and the harness; numpy and msgpack only, for any interpreter.

In: nothing. Out: types, specs, geometry, the wire, plugin lookup, errors.
Read next: `types.py`, then `spec.py`.
"""
