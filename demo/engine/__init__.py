"""What turns messages into TokenEvents."""
