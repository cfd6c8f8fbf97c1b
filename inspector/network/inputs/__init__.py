"""Which input takes the picture, and what does it expect?"""
