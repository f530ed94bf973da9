"""Keep what was seen and what people answered; never decisions."""
