"""Which open-weight models will really run on this machine, and how fast?"""

__version__ = "0.1.0"
