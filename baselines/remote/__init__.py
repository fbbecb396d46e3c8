"""Policies that run behind a websocket, in a server of their own.

In: requests of evalkit. Out: replies of evalkit.
Read next: `policy.py`, the plugin; `adapters/`, one file of data for each policy and bench.
"""
