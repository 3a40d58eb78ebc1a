"""`orbitctl web`: a page with terminals in the browser, and the bridge from its WebSockets to orbitd's socket.

    server   HTTP and WebSockets on the loopback interface: tokens, Host, Origin, limits
    bridge   relays messages between one WebSocket and one connection to orbitd, with back-pressure both ways
    guest    what a read-only guest may ask for, and what of the answers it may see
    page     the files of the page: ours, and those of xterm.js, which are fetched from npm's registry once

Nothing here is imported but by `orbitctl.commands.web`; it needs the extra `web`.
"""
