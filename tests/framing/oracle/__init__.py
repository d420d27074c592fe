"""The C++ reference verifier beside ours (`make oracle`). No pytest: it needs Debian's headers and g++."""
