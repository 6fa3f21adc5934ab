"""What operators type: `python -m statsapi` and its commands. Each parses its arguments, calls one piece of the package
and prints; rules of their own stay out.
"""
