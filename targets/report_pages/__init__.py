"""The report of a program: its facts, a drawing of its graph, and the page that shows both."""
