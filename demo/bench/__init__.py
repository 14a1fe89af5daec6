"""Measurements, each a command: a pair, long contexts, load on engine and page, hours of use, GPU memory."""
