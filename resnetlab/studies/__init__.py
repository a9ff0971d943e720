"""One file per figure, table or claim: its runs, its measurement, its figure, its verdict."""
