"""Fuzzing; `make fuzz`."""
