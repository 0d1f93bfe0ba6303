"""Three ways to do the same work, each in phases that pass everything on by disk."""
