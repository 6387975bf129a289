"""Claims: sentences of the textbook, each with the sweep that tests it and its verdict.

A claim file says the sentence, where it stands, the sweep and the contrasts that decide; the sweep
is an ordinary one, planned, trained, stored and compared like any other.
"""
