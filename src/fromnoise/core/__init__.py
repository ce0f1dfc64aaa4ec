"""What every floor above stands on: errors, files, configuration, randomness and tensor helpers."""
