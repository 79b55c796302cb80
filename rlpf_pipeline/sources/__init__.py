"""Sources: files of observed ads in, the raw table and its rejects out."""
