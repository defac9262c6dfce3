"""One part of each kind that plugs into headrace, each in a file of its own."""
