"""Makes the pages and pictures of the site that are not written by hand."""
