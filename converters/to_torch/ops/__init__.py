"""The operators of the standard, one module per family; importing this fills the table."""
