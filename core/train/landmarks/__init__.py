"""Tuning of the landmark network's later layers on rendered crops; `run.py` puts the parts together.

tail.py what is trained, features.py crops and what the frozen layers make of them, alter.py altered copies of crops,
footage.py crops of real videos, objective.py losses, tune.py training, refit.py what follows from it, score.py
measuring.
"""
