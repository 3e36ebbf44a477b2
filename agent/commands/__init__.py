"""What the commands of the command line do, one file each. Parsing and exit codes are in agent/cli.py."""
