"""One request model for each verb, and what carries it out; every edge derives from it."""
