"""Metrics: images, depth, clouds, poses, LPIPS."""
