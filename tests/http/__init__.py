"""The whole application in this process, through Flask's test client: what callers send, and what they are answered."""
