"""Outputs, one a file: pictures, arrays, the JSON report, a notebook's display."""
