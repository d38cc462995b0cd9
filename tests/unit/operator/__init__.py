"""The operator's pure parts, and its loops against fakes at the seams."""
