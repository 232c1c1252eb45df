"""Many hosts: what they have in common, what keeps a model off them, captures of them."""
