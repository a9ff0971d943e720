"""Files of weights, ours and others': read, identified, loaded, converted."""
