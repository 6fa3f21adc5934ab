"""Where a request goes a shorter way than Gunicorn, Flask and Werkzeug take, and comes to the same.

Everything of that kind is in this folder, made of their own extension points: subclasses, class attributes, contexts.
STATSAPI_SHORTCUTS=off switches all of it off; the test suite passes both ways. tests/http/test_shortcuts.py,
tests/unit/test_known_heads.py, tests/unit/test_response.py and tests/processes/test_shortcuts.py hold each against what
it stands for. Whatever is unusual takes the long way. What a request means stays out.

flask_side       application, routing, contexts and answers
gunicorn_side    heads, the environ, settings and threads
response         Gunicorn's response: head and body in one write

flask_side: processor time in the process of a POST /event (GET /statistics), each line on top of those above it

    116 µs  (86)  Flask and Werkzeug as they come
     95 µs  (67)  a host's URL adapter and a path's route looked up, no sessions, no look for coroutines
     78 µs  (54)  JsonAnswer: no look for what a 200 with JSON cannot be
     63 µs  (41)  contexts and dispatch of a known path without a look for hooks and signals that nobody has
     60 µs  (37)  a request that is read when somebody asks for it

gunicorn_side, response: what a worker's processor time of a POST /event is divided by when this one is taken away; 16
connections, two workers, medians of five runs in turn, a busy machine (0.05 more or less)

    0.72  KnownRequest: a head that came before is not read again
    0.88  a thread gives its connection back to the poller by itself
    0.89  OneWriteResponse: head and body in one write, the date once a second, header names checked once
    0.93  threads without futures
    0.94  the environ of a known head is copied
    0.9 to 1.0  settings as attributes; no timeout set for a body that is there (10 runs of GET: 0.91 and 0.90)

A WSGI callable that does nothing takes 46 µs so, and 125 by Gunicorn alone.
"""
