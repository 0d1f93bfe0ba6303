"""The only place that mixes decisions with effects."""
