"""Files and names of other tools: one two-way key table for each format."""
