"""QUIC on Trio: one datagram pump over aioquic's sans-I/O connections.

`pump` moves datagrams, `endpoint` knows whose they are, `hardening` is aioquic's connection without its holes, `peer`
is what a link sees of one connection. No message and no lane lives below `link`.
"""
