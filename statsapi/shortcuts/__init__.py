"""Where a request goes a shorter way than Gunicorn, Flask and Werkzeug take, and comes to the same.

Everything of that kind is in this folder. STATSAPI_SHORTCUTS=off switches all of it off; the test suite passes both
ways, and tests hold each shortcut against what it stands for.
"""
