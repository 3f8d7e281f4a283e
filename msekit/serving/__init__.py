"""A plug-in behind HTTP: requests, a queue, a page."""
