"""What the statistics of a board can tell apart: second trainings, audited."""
