"""From anybody's log to a config that trains: what each column is, splits, and what looks wrong with the data."""
