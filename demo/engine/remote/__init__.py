"""An engine in a process of its own: its server, its client, and what travels between them."""
