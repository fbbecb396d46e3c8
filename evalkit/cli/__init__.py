"""The command line `evalkit`: one module per group of verbs.

In: nothing. Out: the package.
Read next: `main.py`, which lists the verbs.
"""
