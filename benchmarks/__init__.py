"""Speed and memory, ours and the peers', in one run; no assertions on time."""
