"""What does a model look at, over a whole data set, and may it ship?"""
