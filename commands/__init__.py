"""The command line: each module is a command, run as `python -m commands.NAME` or scripts/NAME.py."""
