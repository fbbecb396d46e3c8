"""The part that benches on MuJoCo share: views, observation, recorded states, and the check of renderers.

In: nothing. Out: the package; importing it starts no simulator.
Read next: `observed.py`, how a simulation is observed; `views.py`, how it is rendered.
"""
