"""What each command answers, as plain data for --json and as text for people, one module each. The commands parse arguments."""
