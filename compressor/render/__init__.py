"""From data to what people read: Rich on the terminal, Markdown in files. No decisions."""
