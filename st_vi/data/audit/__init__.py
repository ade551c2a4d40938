"""Checks of a data set before training: leaks, wrong labels, weak preferences, poor negatives."""
