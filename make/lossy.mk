.PHONY: lossy
lossy: $(VENV)/dev ## a chat and a file over a path that loses 5 %, reorders and repeats, 50 ms there and back; two minutes
	LOSSY=1 $(BIN)/python -m pytest tests/lossy

extras: lossy
