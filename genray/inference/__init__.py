"""Networks in use: in their fastest form, on images of any size."""
