"""What a batch means: its loss and how its predictions are judged."""
