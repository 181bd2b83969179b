"""``recmoe tune``: search for a better config, in Ray workers, trial by trial."""
