"""Which places do the tokens of a transformer stand for, and which tensors attend?"""
