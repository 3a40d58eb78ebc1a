"""The command tree, a module for each group; `orbitctl.cli` imports one when it is called."""
