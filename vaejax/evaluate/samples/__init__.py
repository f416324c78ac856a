"""Samples beside data."""
