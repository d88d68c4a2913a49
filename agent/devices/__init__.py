"""What devices stand at this host."""
