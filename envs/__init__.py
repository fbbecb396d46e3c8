"""Benches: gymnasium environments, one package per simulator, each found by entry point `evalkit.envs`.

In: nothing. Out: the package; importing it starts no simulator.
Read next: `envs/robosuite/bench.py`, the embedded default.
"""
