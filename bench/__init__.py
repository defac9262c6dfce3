"""Measurements: headrace and its peers on the same topic, each in a process of its own."""
