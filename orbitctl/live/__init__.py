"""At a live session: what a user types goes to the daemon, what the program shows comes back.

`attach` is the loop; `terminal` is the user's side, `link` the daemon's, `typing` and `detaching`
what happens to keys on the way, `comeback` the wait for a daemon that restarts. One thread, one
`select`; nothing blocks but that.
"""
