"""Numbers from a network, never changing it."""
