"""What came back: result segments, their merge, and typed views of them."""
