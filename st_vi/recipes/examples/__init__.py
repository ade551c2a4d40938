"""The demos, and small models to try, test and look inside, offline."""
