"""One job on the CPU, before and after the model."""
