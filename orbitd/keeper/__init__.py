"""The keeper: a tiny process that holds the terminals of the live sessions while daemons come and go.

`process`, `spawn` and `messages` run inside it and import nothing but small parts of the
standard library; `client` is the daemon's side of the conversation.
"""
