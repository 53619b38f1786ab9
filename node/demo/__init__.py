"""The demonstration: a federation on one machine, by the commands that a user types, with real processes throughout."""
