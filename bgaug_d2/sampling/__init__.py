"""Which draws show what: policy, planner, mapper, samplers, loaders, look-ahead."""
