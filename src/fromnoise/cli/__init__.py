"""The command line: derived from the request models, with a terminal's progress bars."""
