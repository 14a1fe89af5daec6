"""From a chat model to its Assistant Axis: rollouts, role vectors, axis, floors, gates, report."""
