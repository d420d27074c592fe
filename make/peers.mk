# Clients by others against QUIC and WebTransport: picoquic, quinn, quiche, ngtcp2. Each stands on a stack of its own.
PEERS := .tools/peers
# Their Python packages need 3.12 or newer; say PYTHON312=/path/to/python3.12 to name one.
PYTHON312 ?= python3.12
PYTHON312S = $(PYTHON312) python3.13 $(wildcard $(HOME)/.pyenv/versions/3.1[2-9].*/bin/python3) /usr/bin/python3

extras: peers
extras-fetch: peers-fetch

.PHONY: peers-fetch
peers-fetch: $(PEERS)/fetched ## install QUIC clients by others (Python 3.12+, node, and Debian's ngtcp2-client as root)

$(PEERS)/fetched: make/peers/requirements.txt make/peers/package-lock.json
	@set -e; \
	for each in $(PYTHON312S); do \
		if $$each -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then python=$$each; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "no Python 3.12 or newer found: say PYTHON312=/path/to/python3.12" >&2; exit 1; fi; \
	rm -rf $(PEERS); $$python -m venv $(PEERS)/env; \
	$(PEERS)/env/bin/python -m pip install -q --disable-pip-version-check -r make/peers/requirements.txt
	command -v npm >/dev/null || apt-get install -y -q --no-install-recommends nodejs npm
	cp make/peers/package.json make/peers/package-lock.json make/peers/.npmrc $(PEERS)/ && cd $(PEERS) && npm install --silent
	command -v gtlsclient >/dev/null || { apt-get update -q; apt-get install -y -q --no-install-recommends ngtcp2-client; }
	@touch $@

.PHONY: peers
peers: $(VENV)/dev ## picoquic, quinn, quiche and ngtcp2 clients against a real node
	@if [ -e $(PEERS)/fetched ]; then \
		PEERS=$(abspath $(PEERS)) $(BIN)/python -m pytest tests/peers; \
	else \
		echo "SKIPPED peers: QUIC clients by others are not installed; make peers-fetch gets them" >&2; [ "$$CI" != true ]; \
	fi
