"""Transfer methods side by side: the grid of runs, and what they say."""
