"""Figures as data, and their pictures."""
