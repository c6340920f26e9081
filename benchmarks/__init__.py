"""Speed, memory and exactness, as ratios within one run."""
