"""Serving: predictions by HTTP, from the states that a learner releases."""
