"""The env process: wire format, server and client."""
