"""Images drawn by the program: training data without files, without licences and without end."""
