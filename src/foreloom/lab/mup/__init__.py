"""Do settings of a small model hold for a large one? Table of rules, coordinate check, learning-rate transfer."""
