"""Real processes: Gunicorn, nginx, Redis, Prometheus, the command line; started, signalled, killed and cut off."""
