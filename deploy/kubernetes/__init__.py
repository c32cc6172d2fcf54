"""Kubernetes manifests, for Kustomize, and what writes the one of them that is made."""
