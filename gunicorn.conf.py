"""The configuration of `gunicorn wsgi:app` in this folder: the packaged one. Lines below the import override it."""

import os
import sys

# Gunicorn reads this file before it puts the working directory on the path.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from statsapi.server.gunicorn_conf import *  # noqa: F403
