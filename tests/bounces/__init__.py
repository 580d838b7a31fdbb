"""Reports of real servers, read beside others: `make bounces`."""
