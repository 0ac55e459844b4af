"""Scores forecasters: metrics as additive sums, tasks of rolling windows, naive baselines, the benchmark."""
