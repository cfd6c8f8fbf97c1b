"""How do many photos go through the network, bounded and resumable?"""
