"""A small shop by Django."""
