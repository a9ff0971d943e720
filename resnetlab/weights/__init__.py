"""Weight files, ours and other projects': reading, identifying, loading, converting."""
