"""What processes started by tests find in their environment."""

# without the suite's eight devices; such code is ready in half the time and takes twice as long, of seconds
ONE_DEVICE = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
