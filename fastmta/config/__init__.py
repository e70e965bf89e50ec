"""The configuration: schema, loading with errors that name file, line and key, and the commented default."""
