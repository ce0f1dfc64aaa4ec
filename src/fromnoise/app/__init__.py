"""One request model for each verb, and what carries it out. Command line and server derive from it."""
