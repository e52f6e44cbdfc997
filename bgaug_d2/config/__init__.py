"""Every setting as a plain dataclass; standard library only."""
