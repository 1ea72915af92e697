"""Recommendations: from examples and texts to ranked items with their reasons."""
