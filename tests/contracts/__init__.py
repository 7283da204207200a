"""What other parts rely on, one file a seam."""
