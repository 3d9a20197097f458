"""Training of the networks: data on the device, losses, loop, configurations."""
