"""The schema's history: numbered scripts, each with its own BEGIN and COMMIT."""
