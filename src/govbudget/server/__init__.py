"""A part: the stand-alone server, with its app, workers, tokens, directory file, PostgreSQL and demo."""
