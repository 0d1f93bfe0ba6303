"""Measurements. They print numbers and assert nothing: a ratio holds on one machine in one run, a time nowhere else."""
