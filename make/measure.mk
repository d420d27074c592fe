# Measurements that take minutes and belong to no test. docs/benchmarks.md says how to read them.
.PHONY: soak
soak: $(VENV)/dev ## a hundred thousand connections come and go: the slope of a node's memory; several minutes
	@$(BIN)/python -m benchmarks.soak $(SOAK_FLAGS)

.PHONY: neighbour
neighbour: $(VENV)/dev ## what an innocent connection feels while others attack its node; two minutes
	@$(BIN)/python -m benchmarks.neighbour $(NEIGHBOUR_FLAGS)

.PHONY: roundtrip
roundtrip: $(VENV)/dev ## a message across the cluster: p50, p99, highest rate, CPU by process; three minutes
	@$(BIN)/python -m benchmarks.roundtrip
