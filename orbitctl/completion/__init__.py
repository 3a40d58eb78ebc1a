"""What a shell offers when Tab is pressed behind `orbitctl`.

| module | what is in it |
|---|---|
| `scripts` | what `orbitctl completion SHELL` prints: a function that asks `orbitctl _complete SHELL ...` at each Tab |
| `answer` | that command: which words can be meant, from the table and the daemon |
| `table` | every command with its options and arguments, generated from the command tree by docs/generate.py |
| `bash_words` | splitting a line as bash and readline do, and quoting what is inserted |

A person waits for the answer: nothing here imports click, msgspec or whatever else takes long.
"""
