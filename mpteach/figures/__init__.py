"""Figures of the course: one module a subject, one function an idea."""
