"""The page for the review, its sections, and how it is written as HTML and Markdown."""
