"""What only the nano weights need: refined depth and a decoder that copies pixels."""
