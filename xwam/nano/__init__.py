"""The parts that only nano models have: refined depth and a pixel decoder."""
