"""nats-server in a virtual machine that loses its power under load."""
