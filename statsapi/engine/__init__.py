"""The engine: numbers and state. Exact sums, summaries, sketches, roll-ups, timelines, and the store that holds all of
them behind its lock. It imports numpy, the standard library and `statsapi.model`; Flask, SQL, settings and clocks stay
out, so it works as a library of its own.
"""
