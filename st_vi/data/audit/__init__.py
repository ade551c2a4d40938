"""Checks of a dataset before training: leaks, wrong labels, weak preferences, poor negatives."""
