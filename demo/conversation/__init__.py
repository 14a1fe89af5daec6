"""Conversations: turns and settings as data, and the files that hold them.

Nothing here knows the page or the model.
"""
