"""What the paper published, to stand in reports beside what is measured here. Nothing is trained or chosen by it."""

TITLES = ("Avengers: Age of Ultron", "La La Land", "Inception", "Interstellar")
"""The films of its Table 2: shown of a catalogue that has them."""
RATINGS = {"creativity": (2.8, 4.3), "relevance": (3.1, 4.6), "utility": (2.6, 4.4)}
"""Its Table 3: criterion -> mean rating of the base model's descriptions, and of the tuned one's."""
KAPPA = 0.79
"""How far its raters agreed."""
