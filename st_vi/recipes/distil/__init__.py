"""Distillation of a small encoder from a large one."""
