"""The commands for those who work on this template, and what they share."""
