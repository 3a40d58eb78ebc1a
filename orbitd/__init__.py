"""The daemon: it owns the store, serves the socket and, where asked, runs the terminals."""
