"""The API under /api/v1: JSON in, JSON out, problem details for every error."""
