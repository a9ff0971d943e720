"""What a network is: specs, units, and the names of the papers' networks."""
