"""Serving: one request through the whole model, and its speed."""
