"""Pictures of what happens inside: film strips of sampling."""

from fromnoise.explain.film import film

__all__ = ["film"]
