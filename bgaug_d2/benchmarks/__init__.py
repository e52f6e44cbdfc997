"""What the parts around the model cost; the model itself is measured in ``inpaint.benchmark``."""
