"""The end of a classifier: its scores, its linear head, the pooling before it."""
