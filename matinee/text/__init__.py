"""Text: the one place where an item becomes text, and where a generated text is cleaned and checked against the item's facts."""
