"""What was measured as tables, sentences and one HTML page, for the command line and for Python."""
