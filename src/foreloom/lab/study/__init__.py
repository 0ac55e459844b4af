"""Studies: many runs under one name, from a few lines to CSVs for analysis."""
