"""The parts that only nano models have: refined depth and a pixel decoder.

In: nothing. Out: the package.
Read next: `choice.py`, which model gets which part; `finisher.py`, which applies them.
"""
