"""Is this machine fit for a run, and do its ranks belong together? Facts, and what to do about them."""
