"""A model fitted to data of one's own: candidates are trained, judged on windows they never saw, and the best is kept,
or the model as it was."""
