"""What is checked of the networks before and during a training: their memory and their health."""
