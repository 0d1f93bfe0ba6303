"""The control plane: one SQLAlchemy Core implementation behind several URLs."""
