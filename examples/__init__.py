"""Programs to read and to run. Tests import them from here."""
