"""Comparisons with other tools on real models; not part of the installed package."""
