"""Scores against people's opinions: protocol, statistics, report."""
