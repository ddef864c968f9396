"""Tables: files of rows and columns, the kinds of their columns, and the feature that networks see."""
