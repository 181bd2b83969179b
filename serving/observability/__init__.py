"""What a server tells of each request: its log lines, its span, and what its stages took."""
