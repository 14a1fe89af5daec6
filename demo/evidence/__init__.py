"""What the shipped scripts and documents claim, measured."""
