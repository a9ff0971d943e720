"""How a network learns: recipe, schedule, step, loop, checkpoint, run folder."""
