"""The base figures of the page, as plain data."""
