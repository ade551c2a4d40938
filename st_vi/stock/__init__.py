"""Private names of other libraries and patches of them, each with what it stands for. No other room has any."""
