"""Plug-ins behind HTTP: a page and a JSON endpoint (app, answer), the queue before the backbone, samples to pick."""
