"""The stages of `tools/gpu-check`: each checks or times one part of evalkit and X-WAM on a device.

In: nothing. Out: the package.
Read next: `main.py`, the command; `running.py`, how a stage is run and guarded.
"""
