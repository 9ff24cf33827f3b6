"""Which open-weight models will really run on this machine, and how fast?"""
