"""Training: one loop, and what each kind of training brings to it."""
