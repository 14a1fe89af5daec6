"""An engine in a process of its own: its server, its client, and the JSON that travels between them."""
