"""Looks at pictures, samples and what painting did wrong."""
