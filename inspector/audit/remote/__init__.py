"""Remote addresses: from where a data set comes, to where a report goes, and by which process."""
