"""What the commands share: options, output, and answers to wrong usage."""
