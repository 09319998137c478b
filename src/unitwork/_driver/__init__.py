"""What a driver's connection is sent, and what it answers about its transaction."""
