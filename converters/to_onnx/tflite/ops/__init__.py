"""The operators of TFLite, a module per subject; each function writes one or more of them."""
