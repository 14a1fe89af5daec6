"""The Assistant Axis: its directions, units, floors, principal components, quality gates and files."""
