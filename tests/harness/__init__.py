"""What the outer tests share: starting and ending servers, and speaking the protocol by hand."""
