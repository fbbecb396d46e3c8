"""Serving a policy to many clients: which requests share the next forward pass, and who owns the policy.

In: nothing. Out: the package.
Read next: `scheduler.py`, the decisions; `local.py`, the thread that carries them out.
"""
