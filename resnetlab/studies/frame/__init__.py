"""The frame of every study: plans, evidence, comparisons and their verdicts, texts, runs and records."""
