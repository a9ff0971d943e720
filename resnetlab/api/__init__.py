"""The Python API, which the commands call too: train, evaluate, predict, study, plot_runs."""
