"""`python -m example_project.demo`: Dagster, the sandbox and three days of tickets, watched until the end."""
