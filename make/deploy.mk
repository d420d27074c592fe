# The files in deploy/, and a whole cluster on this machine.
# promtool is taken from Debian's package without installing it: that would start a Prometheus.
PROMETHEUS := .tools/prometheus
PROMTOOL ?= $(firstword $(wildcard $(PROMETHEUS)/usr/bin/promtool) $(shell command -v promtool))

extras: alerts
extras-fetch: alerts-fetch

.PHONY: alerts-fetch
alerts-fetch: ## fetch promtool (Debian's package prometheus; nothing is installed)
	apt-get update -q
	rm -rf $(PROMETHEUS) && mkdir -p $(PROMETHEUS)
	cd $(PROMETHEUS) && apt-get download -q prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb
	$(PROMETHEUS)/usr/bin/promtool --version

.PHONY: alerts
alerts: $(VENV)/dev ## the alert rules and the dashboard's queries under promtool, and whether their tests can fail
	@if [ -n "$(PROMTOOL)" ]; then \
		$(BIN)/python -m tests.deploy.alerts $(PROMTOOL); \
	else \
		echo "SKIPPED alerts: promtool is not installed; make alerts-fetch gets it on Debian" >&2; [ "$$CI" != true ]; \
	fi

.PHONY: cluster
cluster: $(VENV)/dev ## two nodes, two Logics, NATS and Redis on this machine, until Ctrl-C; CLUSTER_FLAGS="--port 9000"
	@exec $(BIN)/python -m examples.cluster $(CLUSTER_FLAGS)

.PHONY: cluster-test
cluster-test: $(VENV)/dev ## the same cluster under test: chat, racing logins, killed nodes and Logics
	CLUSTER=1 $(BIN)/python -m pytest tests/cluster

extras: cluster-test

.PHONY: books
books: $(VENV)/dev ## the same cluster under clients that race and vanish; then every account, summed; half a minute
	@$(BIN)/python -m benchmarks.books

.PHONY: outage
outage: $(VENV)/dev ## 2,000 messages while NATS, Redis and a Logic are stopped and killed, as a table; three minutes
	@$(BIN)/python -m benchmarks.outage
