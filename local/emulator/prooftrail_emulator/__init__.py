"""Plugins that let LocalStack run this project's functions and custom resources without Docker."""
