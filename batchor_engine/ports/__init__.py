"""The seams between the runtime and everything it drives."""
