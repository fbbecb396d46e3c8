"""What envs, policies and the harness agree on; numpy and msgpack only, so that any interpreter can import it.

In: nothing. Out: types, specs, geometry, the wire, plugin lookup, errors.
Read next: `types.py`, then `spec.py`.
"""
