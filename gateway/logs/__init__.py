"""Structured logs: what the node says about itself, safe to read whatever clients sent."""
