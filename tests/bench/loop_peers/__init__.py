"""The two sides of the closed loop, run as programs by `../closed_loop_peers.py`."""
