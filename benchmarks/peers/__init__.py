"""statsapi beside what people would take instead, in turn on one machine: `python -m benchmarks.peers --quick`.

`programs` finds or fetches the peers' programs, `servers` runs each peer and speaks its protocol, `measures` times
them, `correctness` asks each whether it counts right, `report` makes ratios, tables and charts of what they saw.
"""
