"""A session's terminal: what is on its screen, how that is saved, and how it is drawn elsewhere.

Importing this loads no native library; `emulator.unavailable_reason` says whether this machine has one.
"""
