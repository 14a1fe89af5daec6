"""The model's forward pass, by transformers' own modules or by fewer, faster operations."""
