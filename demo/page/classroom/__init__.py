"""Class mode: one speaker, many phones, and a board that shows how all their conversations drift."""
