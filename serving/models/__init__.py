"""The models of a running server: which one answers, which take its place, and what proves them.

One process follows the aliases of one model in the registry:

    the alias of the source      the champion: it answers
    @challenger                  answers a share of the users, if there is one
    @shadow                      answers no request; its scores are compared, if there is one

A thread asks the registry (``watch``), loads what an alias names now, lets it answer the last requests once more
(``live``) and puts it in its place (``holder``). What does not pass is refused, and the one before goes on.
"""
