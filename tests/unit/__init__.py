"""One part at a time, called directly: no server, no HTTP, no process of its own."""
