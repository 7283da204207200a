"""Hostile text made readable: normalised, decoded, matched against patterns, and searched for destinations."""
