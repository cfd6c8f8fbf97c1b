"""What are the outputs called, and what says that they are class scores?"""
