"""What every stage needs of the machine it runs on: files that are whole or absent, JSON that is checked, locks."""
