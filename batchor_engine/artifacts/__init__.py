"""Where files live: request parts, raw answers, result segments."""
