"""Loading models: where they come from, where their decoder layers are, and which token is whose content."""
