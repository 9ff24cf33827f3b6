"""Measure this machine, so that estimates lean on it: memory bandwidth, and an installed engine with models at hand.

Nothing here runs, and nothing is written, unless ``fitcheck calibrate`` is typed. ``measure`` shares the time out,
``trials`` chooses models and lengths, ``engines`` run them, ``solve`` turns speeds into factors, ``stored`` keeps those
for this hardware only.
"""
