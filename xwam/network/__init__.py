"""The transformer: layers, the network, and a slow reference of the released algorithm.

In: nothing. Out: the package.
Read next: `transformer.py`, the network; `layers.py`, its parts.
"""
