"""Pure detection: events in, findings out.

Nothing here reads a file, a socket, a clock or a setting, and nothing imports
``monitor``: the same input gives the same findings, live, replayed or in a test.
"""
