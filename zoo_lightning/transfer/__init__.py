"""What sources are worth before any training: their relations to one another and to a data set."""
