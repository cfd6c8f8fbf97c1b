"""Which numbers do the integers of a quantised network stand for?"""
