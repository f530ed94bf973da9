"""Write reports, and take corrections back in."""
