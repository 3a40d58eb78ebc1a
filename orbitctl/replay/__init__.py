"""The player of `orbitctl session replay`.

    screen       a terminal in memory: what a film shows, drawn for a window of any size
    tape         asciicast as it comes from the daemon, page by page
    player       which events are due: playing, pausing, seeking; and what keys mean
    run_replay   the user's terminal, the daemon, and the loop between them

A film is never written to the user's terminal as it is: it was made for another size, there is a status line below it,
and it may hold anything that a program has ever printed. What is drawn are the cells that it leaves behind. So no
sequence of it reaches the terminal: no clipboard, title, question or mode.
"""
