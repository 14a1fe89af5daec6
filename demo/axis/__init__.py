"""The Assistant Axis: directions, units and floors, its components, its quality gates, and the files that hold it."""
