"""What a series is called, and how a question chooses series: names with their tags, patterns, and the catalogue of
names that are held. A leaf: it knows neither store nor HTTP, and nothing of it is kept in the journal.
"""
