"""Benches: gymnasium environments, one package per simulator, each found by entry point `evalkit.envs`.

Read next: `envs/robosuite/bench.py`, the embedded default.
"""
