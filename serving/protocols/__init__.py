"""How requests and answers are written: a file per protocol, with its pages, its decoding and its encoding."""
