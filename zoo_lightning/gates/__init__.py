"""What a trained zoo's gates say of its sources, beside what removing each source does."""
