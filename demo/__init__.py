"""Live microscope for persona drift: pair, cap, project, show."""
