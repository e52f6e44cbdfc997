"""Painted pictures on disk: content-addressed, verified, safe against kills and full disks."""
