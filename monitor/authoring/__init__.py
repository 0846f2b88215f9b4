"""What the commands ``watchkeeper rules`` do for the person who writes rules."""
