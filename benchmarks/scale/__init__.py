"""What a mesh of thousands costs the API server and the operator: `make bench-scale`."""
