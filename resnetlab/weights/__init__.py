"""Files of weights, ours and others': read, told apart, loaded, converted."""
