"""Real scanners before a real relay: `make scanners`."""
