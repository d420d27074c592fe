"""Proof of the hot path: `gateway._framing` against the schema, the PyPI flatbuffers package and a plain reference."""
