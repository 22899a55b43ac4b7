"""Equal rounds of statements as loops."""
