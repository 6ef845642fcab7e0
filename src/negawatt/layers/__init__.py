"""Layers: caches for the application's own work, with the keys, scope, tags and stores that the gateway's have."""
