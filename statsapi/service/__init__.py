"""The service: the order of steps. A view follows the journal, recording appends to it, questions catch up first, and
housekeeping folds and compacts what is old. It holds engine and journal together; HTTP and SQL stay out.
"""
