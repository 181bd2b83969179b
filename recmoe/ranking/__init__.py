"""Request → ordered items."""
