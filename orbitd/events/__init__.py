"""Events on their way to those who want to hear them.

    subscriptions   one subscription: what it wants, how far it is, whether it follows or reads
    broker          all of them; publishes what was committed, and what is live only
    methods         `events.*`
    daemon_events   what the daemon says of itself: that it starts and stops, and its warnings
    listener        a subscription of the daemon's own
    hooks, desktop  the user's programs that are run for events; notifications on the desktop
    child           runs a program for them

The events themselves are rows of the store, written with the change that each tells of (`orbitd.store.events`).
"""
