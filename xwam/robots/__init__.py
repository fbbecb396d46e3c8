"""The robot side of the model: actions, axes, images, and one interface per bench.

In: nothing. Out: the package.
Read next: `interfaces.py`, the differences between benches; `actions.py`, the scaling of states and actions.
"""
