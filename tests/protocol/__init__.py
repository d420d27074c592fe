"""Tests of gateway.protocol."""
