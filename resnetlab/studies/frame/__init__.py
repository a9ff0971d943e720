"""What every study stands on: plans, evidence, comparisons and their verdicts, texts, runs and records."""
