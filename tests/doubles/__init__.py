"""Doubles and small inputs that several test files use: benches, policies, recordings, networks.

In: nothing. Out: plain functions and classes; fixtures are in the `conftest.py` files. No test imports another test.
"""
