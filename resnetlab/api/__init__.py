"""What Python calls and the commands call too: train, evaluate, predict, study, plot_runs."""
