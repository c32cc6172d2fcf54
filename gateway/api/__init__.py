"""What is served over HTTP: the public pages and the internal endpoints."""
