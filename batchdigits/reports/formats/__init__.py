"""Write the rows of a report in each of its formats."""
