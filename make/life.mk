.PHONY: reference
reference: $(VENV)/built ## write docs/configuration.md from the settings
	$(BIN)/python -m gateway config --markdown > docs/configuration.md
