"""The attribution methods, one a file; adding a file adds a method."""
