"""Language models: finding and loading them, their decoder layers, their devices and their chat templates."""
