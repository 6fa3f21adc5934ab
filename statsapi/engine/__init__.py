"""The engine: numbers and state. Exact sums, summaries, sketches, roll-ups, timelines, and the store that holds all of
them behind its lock. It imports `statsapi.model`, `statsapi.errors`, numpy, and those modules of the standard library
that compute: no file, socket or clock. Flask, SQL and settings stay out, so it works as a library of its own.

Imports point down this list, never up.

groups          one question over many series: the total, and groups beside it
store           all series behind the lock: what the journal's records add up to, and every question about one series
sizes           how much a store holds: for limits and metrics
contents        everything a store holds, taken out and put back: for checkpoints and images
listing         which series there are, and what a question can reach of each
union_both      two questions about the same series at once
union_steps     a chart over the union of series
histogram       how the values of a union are spread
union_kept      the latest answers over unions, brought up to date
union           what each series adds to a question over several
step_details    percentiles, first and last of a chart's steps
guard           the lock
holdings        timelines and roll-ups by series: what changes them, folds them and drops them
answers         answers about spans, put together from raw events and roll-ups
sweep           many series looked at in short slices of time, each as it was at one instant
changes         the latest events of all series
timelines       the timelines of all series
timeline        one series: exact answers about any range of its events
rollup          one series: a minute's events reduced to some bytes
held_events     the events of one series: its chunks and its open tail
packed          the bytes of a sealed chunk, for other processes to map
chunks          the chunks of a series in order of time, and prefix sums over them
chunk           sealed events, and the late ones among them
sealed          sorted columns that never change, and the answers that they remember
frozen          events as they stood, read without the lock
buffer          columns that grow: the tail, and late events
sums_before     sums before a position that moves little
ranked          a bag of values; only the values near some ranks are known
percentiles     exact percentiles of many sorted columns
sketch          the quantile sketch: percentiles of events that were rolled up
counted         the counts that percentiles take in each column, kept for the next question
summary         count, min, max and both sums of a bag of values, and how they are rounded
exact           exact sums of floats, as integers
piecewise       calls over very many objects, in pieces
placement       whether an event is recent, older, expired or ahead
invariants      what must always hold in here, said where it is checked
"""
