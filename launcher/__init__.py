"""Resolute: trains image models by progressive resizing, and never loses work."""

__version__ = "0.1.0"
