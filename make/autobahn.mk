# Autobahn|Testsuite against the WebSocket port. The suite runs on Python 2.7 only, so it lives in an environment of its own.
AUTOBAHN := .tools/autobahn
# Where a Python 2.7 is looked for; say PYTHON27=/path/to/python2.7 to name one.
PYTHON27 ?= python2.7
PYTHON27S = $(PYTHON27) $(wildcard $(HOME)/.pyenv/versions/2.7.*/bin/python2.7) /usr/bin/python2.7

extras: autobahn
extras-fetch: autobahn-fetch

.PHONY: autobahn-fetch
autobahn-fetch: $(AUTOBAHN)/fetched ## install Autobahn|Testsuite (needs a Python 2.7, taken from Debian where it has one)

$(AUTOBAHN)/fetched: make/autobahn/requirements.txt | $(VENV)/made
	@set -e; \
	works() { "$$1" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null; }; \
	find27() { for python in $(PYTHON27S); do if works $$python; then echo $$python; return; fi; done; }; \
	python=$$(find27); \
	if [ -z "$$python" ]; then apt-get install -y -q --no-install-recommends python2.7-dev || true; python=$$(find27); fi; \
	if [ -z "$$python" ]; then echo "no Python 2.7 found: say PYTHON27=/path/to/python2.7" >&2; exit 1; fi; \
	rm -rf $(AUTOBAHN); \
	$(BIN)/python -m venv $(AUTOBAHN)/maker; \
	$(AUTOBAHN)/maker/bin/pip install -q --disable-pip-version-check virtualenv==20.21.1; \
	$(AUTOBAHN)/maker/bin/virtualenv -q -p "$$(command -v $$python)" $(AUTOBAHN)/env; \
	$(AUTOBAHN)/env/bin/pip install -q --disable-pip-version-check --no-deps -r make/autobahn/requirements.txt 2>&1 \
		| grep -v DEPRECATION || true; \
	$(AUTOBAHN)/env/bin/wstest --autobahnversion; \
	touch $@

.PHONY: autobahn
autobahn: $(VENV)/dev ## Autobahn|Testsuite cases 1-7, 9, 10 against the WebSocket port, ws and wss
	@if [ -e $(AUTOBAHN)/fetched ]; then \
		$(BIN)/python -m tests.autobahn.run $(AUTOBAHN)/env/bin/wstest; \
	else \
		echo "SKIPPED autobahn: Autobahn|Testsuite is not installed; make autobahn-fetch gets it" >&2; [ "$$CI" != true ]; \
	fi
