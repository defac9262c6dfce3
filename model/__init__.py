"""The learning core: pure JAX, one compiled loop. Knows arrays; never Kafka, clocks or files."""
