"""What does the graph say?  Layers, scores, head, receptive fields: read off, never run."""
