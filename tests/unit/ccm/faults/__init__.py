"""A whole controller manager against API servers, clouds and leases that fail."""
