"""How is a network run, forwards and backwards?"""
