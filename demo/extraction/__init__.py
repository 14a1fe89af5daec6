"""Extract a chat model's Assistant Axis: rollouts, role vectors, axis, floors, sweep, gates, report."""
