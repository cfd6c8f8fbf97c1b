"""How is one unit projected down to the pixels?"""
