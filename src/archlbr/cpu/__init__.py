"""The processor: executes guest code and says which branches it took."""
