"""What a run is made of: its length and what it costs."""
