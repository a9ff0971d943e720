"""Parse and call; no logic."""
