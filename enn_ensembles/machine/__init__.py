"""Files, locks, signals, devices and job arrays: what knows no network."""
