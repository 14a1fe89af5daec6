"""The figures that the page starts from, as plain data."""
