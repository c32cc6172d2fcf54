"""The same fan-out on what a user would else pick: `python -m loadtest compare-peers`.

Every server is one process with its best known settings (`servers/`), and meets the same load side (`crowd`), which
checks that each subscriber got each message once.
"""
