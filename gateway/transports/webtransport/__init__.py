"""WebTransport: HTTP/3 on a QUIC connection, one session in it, its streams as lanes.

transport   what all sessions of an endpoint share, and how each begins
link        a session as a `LanedLink`
session     one session: its streams and datagrams, before and after it is accepted
http3       one connection: requests, datagrams, whose the streams are, how it ends; knows no lane
kinds       what one stream can be: opening, control, request, one of the session's
counts      what came, and what became of it
request     what a CONNECT must be, and what every request is answered
"""
