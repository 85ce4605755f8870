"""The notations of other systems, to and from `Layout`: format words stay in here."""
