"""How fast it is: one pair, a crowd, a long conversation, a room full of visitors on the page."""
