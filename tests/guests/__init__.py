"""The programs the tests record, compiled on the machine that runs them."""
