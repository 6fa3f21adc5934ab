"""The WSGI entry point: `gunicorn wsgi:app` finds gunicorn.conf.py by itself."""

from statsapi.app import create_app

app = create_app()
