"""Where are a classifier's scores, and is its head linear?"""
