"""Streams that are meant to break a learner, and what becomes of ours on them."""
