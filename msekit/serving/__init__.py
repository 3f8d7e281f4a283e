"""Plug-ins behind HTTP: a page and a JSON endpoint (app), the queue before the backbone, uploads, samples to pick."""
