"""Helpers that any package may use: errors, files, progress, statistics and resource usage."""
