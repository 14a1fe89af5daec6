"""Conversations: turns and settings as data, and the files that hold them. It knows neither page nor model."""
