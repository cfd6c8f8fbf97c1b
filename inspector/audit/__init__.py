"""Several models, or many images: comparisons."""
