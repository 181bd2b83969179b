def write_tune_page(*a): pass
