"""What a series is called, and how a question chooses series. It imports nothing of statsapi but `errors`: it knows
neither store nor HTTP, and nothing of it is kept in the journal.

Imports point down this list, never up.

catalogue   which of the names that are held a question chooses, and the tags in them
patterns    `*` and `?` in a name, and `where=KEY=…`
names       which names and tags are taken, how they are written, and why one is refused
"""
