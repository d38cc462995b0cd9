"""The Helm chart: what it renders, and what a real API server makes of it."""
