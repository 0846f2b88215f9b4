"""The commands, one module to a group of them. Whatever is heavy is imported inside its command."""
