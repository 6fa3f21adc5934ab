"""From the bytes of a body to columns of events: one reader for each form, the fast paths, and the schema that they
agree with. It refuses with a reason and a cure; what becomes of the events is decided elsewhere.
"""
